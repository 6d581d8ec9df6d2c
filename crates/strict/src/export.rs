//! The form of exported functions.

/// Exports functions with the signatures of NVIDIA's headers.
macro_rules! export {
    ($($(#[doc = $doc:literal])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            /// Pointers are null or as NVIDIA's header has them. Handles may be anything.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> std::ffi::c_int $body
        )*
    };
}
pub(crate) use export;

use std::ffi::c_int;

use crate::{rule::Rule, state::State, status};

/// Writes what a call gives through its pointer.
pub fn give<T>(state: &mut State, place: *mut T, value: T) -> Result<(), c_int> {
    if place.is_null() {
        return state.refuse(Rule::Argument, "null in place of a result", status::INVALID_VALUE);
    }
    // SAFETY: a pointer that is not null has room for the result.
    unsafe { place.write(value) };
    Ok(())
}
