//! Values of any type as keys of one table.

use std::any::Any;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// What a [`Key`] asks of its value.
trait Value {
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn Any) -> bool;
    fn add_to(&self, state: &mut dyn Hasher);
    fn as_debug(&self) -> &dyn Debug;
}

impl<T: Any + Eq + Hash + Debug> Value for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }

    fn add_to(&self, mut state: &mut dyn Hasher) {
        (self.type_id(), self).hash(&mut state);
    }

    fn as_debug(&self) -> &dyn Debug {
        self
    }
}

/// A value of any type, equal to the same value of the same type.
#[derive(Clone)]
pub struct Key(Rc<dyn Value>);

impl Key {
    /// Of a value.
    pub fn new(value: impl Any + Eq + Hash + Debug) -> Key {
        Key(Rc::new(value))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0.equals(other.0.as_any())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.add_to(state);
    }
}

impl Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_debug().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_differ_in_type_or_value() {
        let mut known = HashSet::new();
        for (key, is_new) in [
            (Key::new(1_i32), true),
            (Key::new(1_i64), true),
            (Key::new(1_i64), false),
            (Key::new((1_i64, "a")), true),
            (Key::new((1_i64, "b")), true),
            (Key::new((1_i64, "b")), false),
        ] {
            assert_eq!(known.insert(key.clone()), is_new, "{key:?}");
        }
    }
}
