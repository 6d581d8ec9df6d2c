//! Panics become internal errors: nothing of them reaches the user's terminal raw.

use std::{any::Any, cell::RefCell, panic};

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Silences the default report of panics; [`describe`] tells what it would have said.
pub fn install_hook() {
    panic::set_hook(Box::new(|info| {
        PLACE.set(info.location().map(ToString::to_string));
    }));
}

/// The text of a panic caught on this thread, and where it happened.
pub fn describe(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    match PLACE.take() {
        Some(place) => format!("{text} ({place})"),
        None => text.to_string(),
    }
}
