//! Wrong use: the exit code, a message that names what is wrong and what to do, and nothing half-written.

mod colours;
mod compiler;
mod executable;
mod messages;
mod several;
