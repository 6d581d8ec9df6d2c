//! Operators and their attributes as keys of tables: equal where their bits are, so that a NaN equals itself and two
//! zeros differ.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::attributes::{Attribute, Word};
use crate::ops::{Op, UnaryFunction};

fn bits(floats: &[f64]) -> Vec<u64> {
    floats.iter().map(|float| float.to_bits()).collect()
}

impl PartialEq for Attribute {
    fn eq(&self, other: &Attribute) -> bool {
        use Attribute::{Bool, Float, Int, Ints, Literal, Shape, Text, Type, Word};
        match (self, other) {
            (Int(a), Int(b)) => a == b,
            (Float(a), Float(b)) => a.to_bits() == b.to_bits(),
            (Bool(a), Bool(b)) => a == b,
            (Text(a), Text(b)) => a == b,
            (Ints(a), Ints(b)) => a == b,
            (Shape(a), Shape(b)) => a == b,
            (Type(a), Type(b)) => a == b,
            (Word(a, x), Word(b, y)) => a == b && bits(x) == bits(y),
            (Literal(a), Literal(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}

impl Eq for Attribute {}

impl Hash for Attribute {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Attribute::Int(i) => i.hash(state),
            Attribute::Float(f) => f.to_bits().hash(state),
            Attribute::Bool(b) => b.hash(state),
            Attribute::Text(s) => s.hash(state),
            Attribute::Ints(v) => v.hash(state),
            Attribute::Shape(s) => s.hash(state),
            Attribute::Type(t) => t.hash(state),
            Attribute::Word(word, arguments) => (word, bits(arguments)).hash(state),
            Attribute::Literal(literal) => literal.dims.hash(state),
        }
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        self.name() == other.name() && self.attributes() == other.attributes()
    }
}

impl Eq for Op {}

impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name(), self.attributes()).hash(state);
    }
}

impl PartialEq for UnaryFunction {
    fn eq(&self, other: &UnaryFunction) -> bool {
        let ((word, arguments), (other, others)) = (self.to_word(), other.to_word());
        word == other && bits(&arguments) == bits(&others)
    }
}

impl Eq for UnaryFunction {}

impl Hash for UnaryFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (word, arguments) = self.to_word();
        (word, bits(&arguments)).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ops::Unary;

    #[test]
    fn operators_are_equal_where_their_bits_are() {
        let op = |alpha: f64| {
            Op::from(Unary {
                function: UnaryFunction::LeakyRelu { alpha },
            })
        };
        let mut known = HashSet::new();
        for alpha in [0.0, -0.0, f64::NAN, 0.1] {
            assert!(known.insert(op(alpha)), "{alpha}");
            assert!(!known.insert(op(alpha)), "{alpha}");
        }
        let relu = Op::from(Unary {
            function: UnaryFunction::Relu,
        });
        assert!(known.insert(relu));
    }
}
