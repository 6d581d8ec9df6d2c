//! Graph passes of syncbn-compile, the list that orders them and the manager that runs them.
