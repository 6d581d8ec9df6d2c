//! Fields of the structures that the runtime hands to generated code.

use super::{Elem, Emitter, Val};

/// Loads fields of one element type of a `#[repr(C)]` structure: `fields!(e, pointer, Structure, F64, [lr, momentum])`.
macro_rules! fields {
    ($e:expr, $structure:expr, $of:ty, $elem:ident, [$($name:ident),+ $(,)?]) => {
        [$($e.field($structure, std::mem::offset_of!($of, $name), $crate::emit::Elem::$elem)),+]
    };
}
pub(crate) use fields;

impl<'c> Emitter<'c> {
    /// Loads the field that lies `offset` bytes after the start of a structure.
    pub fn field(&self, structure: Val<'c>, offset: usize, elem: Elem) -> Val<'c> {
        let offset = self.index(offset as i64);
        self.load_scalar(self.address(structure, Elem::I8, offset), elem)
    }
}
