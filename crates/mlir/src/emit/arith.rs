//! Constants, arithmetic, comparisons and conversions.

use melior::ir::Attribute;
use melior::ir::attribute::{
    DenseElementsAttribute, DenseI64ArrayAttribute, FloatAttribute, IntegerAttribute,
};

use super::{Elem, Emitter, Val};

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `a == b`
    Eq,
    /// `a < b`, signed or ordered
    Lt,
    /// `a <= b`, signed or ordered
    Le,
    /// `a > b`, signed or ordered
    Gt,
    /// `a >= b`, signed or ordered
    Ge,
    /// `a != b`; true for NaN
    Ne,
    /// `a < b`, unsigned; integers only
    Below,
}

impl<'c> Emitter<'c> {
    /// An integer constant.
    pub fn int(&self, elem: Elem, value: i64) -> Val<'c> {
        let ty = self.ty(elem, 1);
        let attribute: Attribute<'c> = IntegerAttribute::new(ty, value).into();
        let emit = || self.op1("arith.constant", &[], (elem, 1), &[("value", attribute)]);
        let mut pool = self.constants.borrow_mut();
        let Some(pool) = &mut *pool else {
            return emit();
        };
        if let Some(&known) = pool.known.get(&(elem, value)) {
            return known;
        }
        let outer = (self.block.replace(pool.block), self.before.replace(pool.first));
        let constant = emit();
        self.block.set(outer.0);
        self.before.set(outer.1);
        pool.known.insert((elem, value), constant);
        constant
    }

    /// A constant of the type of indices.
    pub fn index(&self, value: i64) -> Val<'c> {
        self.int(self.index_elem, value)
    }

    /// A floating-point constant.
    pub fn float(&self, elem: Elem, value: f64) -> Val<'c> {
        let elem = elem.register();
        let ty = self.ty(elem, 1);
        let attribute = FloatAttribute::new(self.context, ty, value).into();
        self.op1("arith.constant", &[], (elem, 1), &[("value", attribute)])
    }

    /// `[0, stride, 2*stride, …]` in the current number of lanes.
    pub fn lane_offsets(&self, stride: i64) -> Val<'c> {
        let lanes = self.lanes();
        if lanes == 1 {
            return self.index(0);
        }
        let elem = self.index_elem;
        let ty = self.ty(elem, lanes);
        let values = (0..lanes as i64).map(|i| i * stride);
        let attribute: Attribute<'c> = match elem {
            Elem::I32 => {
                let values: Vec<i32> = values.map(|v| v as i32).collect();
                DenseElementsAttribute::i32_values(ty, &values).into()
            }
            _ => DenseElementsAttribute::i64_values(ty, &values.collect::<Vec<i64>>()).into(),
        };
        self.op1("arith.constant", &[], (elem, lanes), &[("value", attribute)])
    }

    /// A scalar in every lane; vectors stay as they are.
    pub fn splat(&self, v: Val<'c>, lanes: usize) -> Val<'c> {
        if v.lanes == lanes || lanes == 1 {
            return v;
        }
        self.op1("vector.broadcast", &[v], (v.elem, lanes), &[])
    }

    fn same_lanes<const N: usize>(&self, vals: [Val<'c>; N]) -> ([Val<'c>; N], usize) {
        let lanes = vals.iter().map(|v| v.lanes).max().unwrap_or(1);
        (vals.map(|v| self.splat(v, lanes)), lanes)
    }

    pub(super) fn binary(&self, float: &str, int: &str, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        let (operands, lanes) = self.same_lanes([a, b]);
        let name = if a.elem.is_float() { float } else { int };
        self.op1(name, &operands, (a.elem, lanes), &[])
    }

    /// `a + b`
    pub fn add(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.addf", "arith.addi", a, b)
    }

    /// `a - b`
    pub fn sub(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.subf", "arith.subi", a, b)
    }

    /// `a * b`
    pub fn mul(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.mulf", "arith.muli", a, b)
    }

    /// `a / b`; unsigned for integers.
    pub fn div(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.divf", "arith.divui", a, b)
    }

    /// `a mod b`, unsigned.
    pub fn rem(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.remf", "arith.remui", a, b)
    }

    /// The larger one; NaN if one is NaN.
    pub fn max(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.maximumf", "arith.maxsi", a, b)
    }

    /// The smaller one; NaN if one is NaN.
    pub fn min(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.minimumf", "arith.minsi", a, b)
    }

    /// Both (of comparisons).
    pub fn and(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.andi", "arith.andi", a, b)
    }

    /// One of them (of comparisons).
    pub fn or(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.ori", "arith.ori", a, b)
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&self, a: Val<'c>, b: Val<'c>, c: Val<'c>) -> Val<'c> {
        let (operands, lanes) = self.same_lanes([a, b, c]);
        self.op1("math.fma", &operands, (a.elem, lanes), &[])
    }

    /// `-a`
    pub fn neg(&self, a: Val<'c>) -> Val<'c> {
        self.op1("arith.negf", &[a], (a.elem, a.lanes), &[])
    }

    /// A comparison, lane by lane.
    pub fn compare(&self, how: Compare, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        let (operands, lanes) = self.same_lanes([a, b]);
        let (name, predicate) = if a.elem.is_float() {
            let predicate = match how {
                Compare::Eq => 1,
                Compare::Gt => 2,
                Compare::Ge => 3,
                Compare::Lt | Compare::Below => 4,
                Compare::Le => 5,
                Compare::Ne => 13,
            };
            ("arith.cmpf", predicate)
        } else {
            let predicate = match how {
                Compare::Eq => 0,
                Compare::Ne => 1,
                Compare::Lt => 2,
                Compare::Le => 3,
                Compare::Gt => 4,
                Compare::Ge => 5,
                Compare::Below => 6,
            };
            ("arith.cmpi", predicate)
        };
        let predicate = self.i64_attribute(predicate);
        self.op1(name, &operands, (Elem::I1, lanes), &[("predicate", predicate)])
    }

    /// `condition ? a : b`, lane by lane.
    pub fn select(&self, condition: Val<'c>, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        let ([condition, a, b], lanes) = self.same_lanes([condition, a, b]);
        self.op1("arith.select", &[condition, a, b], (a.elem, lanes), &[])
    }

    /// The value in another element type: between floats, from integers to floats, between integers
    /// (unsigned), from i1. What is to be stored in bf16 becomes f32.
    pub fn convert(&self, v: Val<'c>, to: Elem) -> Val<'c> {
        let to = to.register();
        let name = match (v.elem.is_float(), to.is_float()) {
            _ if v.elem == to => return v,
            (true, true) if to == Elem::F64 => "arith.extf",
            (true, true) => "arith.truncf",
            (true, false) => "arith.fptosi",
            (false, true) if v.elem == Elem::I64 || v.elem == Elem::I32 => "arith.sitofp",
            (false, true) => "arith.uitofp",
            (false, false) if to.bytes() > v.elem.bytes() || v.elem == Elem::I1 => "arith.extui",
            (false, false) => "arith.trunci",
        };
        self.op1(name, &[v], (to, v.lanes), &[])
    }

    /// An f64 value as its rounding to `to`, and what rounding took from it unless that is nothing.
    pub fn split(&self, v: Val<'c>, to: Elem) -> (Val<'c>, Option<Val<'c>>) {
        let high = self.convert(v, to);
        if to == Elem::F64 {
            return (high, None);
        }
        let back = self.convert(high, Elem::F64);
        let low = self.sub(v, back);
        (high, Some(self.convert(low, to)))
    }

    /// The same bits as another element type of the same size.
    pub fn bitcast(&self, v: Val<'c>, to: Elem) -> Val<'c> {
        self.op1("arith.bitcast", &[v], (to, v.lanes), &[])
    }

    /// `a << b`
    pub fn shift_left(&self, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.binary("arith.shli", "arith.shli", a, b)
    }

    /// The lanes of two vectors in turn, as two vectors.
    pub fn interleave(&self, a: Val<'c>, b: Val<'c>) -> [Val<'c>; 2] {
        let lanes = a.lanes as i64;
        [0, lanes / 2].map(|first| {
            let mask: Vec<i64> = (0..lanes).map(|i| first + i / 2 + i % 2 * lanes).collect();
            let mask: Attribute<'c> = DenseI64ArrayAttribute::new(self.context, &mask).into();
            self.op1("vector.shuffle", &[a, b], (a.elem, a.lanes), &[("mask", mask)])
        })
    }

    /// The sum of all lanes, in a fixed order.
    pub fn reduce_add(&self, v: Val<'c>) -> Val<'c> {
        self.reduce(v, "add")
    }

    /// The largest of all lanes; NaN if one is NaN.
    pub fn reduce_max(&self, v: Val<'c>) -> Val<'c> {
        self.reduce(v, "maximumf")
    }

    fn reduce(&self, v: Val<'c>, kind: &str) -> Val<'c> {
        if v.lanes == 1 {
            return v;
        }
        let kind = self.parse_attribute(&format!("#vector.kind<{kind}>"));
        let fast = self.parse_attribute("#arith.fastmath<reassoc>");
        self.op1(
            "vector.reduction",
            &[v],
            (v.elem, 1),
            &[("kind", kind), ("fastmath", fast)],
        )
    }
}
