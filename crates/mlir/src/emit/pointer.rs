//! Addresses that walk through memory: what register tiles are written with.
//!
//! A [`super::Buffer`] answers for one logical index at a time; a tile of registers reads neighbours at constant
//! distances of an address that its loops move, which is what processors address for nothing.

use melior::ir::Attribute;
use melior::ir::attribute::TypeAttribute;

use super::{Elem, Emitter, Val};

/// Bytes of a line of the cache.
pub const LINE: i64 = 64;
/// Bytes ahead of what is read that lines of a stream are asked for.
pub const AHEAD: i64 = 2048;

/// An address of elements.
#[derive(Debug, Clone, Copy)]
pub struct Pointer<'c> {
    /// The address.
    pub address: Val<'c>,
    /// Type of the elements in memory.
    pub elem: Elem,
}

impl<'c> Pointer<'c> {
    /// Elements of this type at an address.
    pub fn new(address: Val<'c>, elem: Elem) -> Pointer<'c> {
        Pointer { address, elem }
    }
}

impl<'c> Emitter<'c> {
    /// `p + elements`
    pub fn shift(&self, p: Pointer<'c>, elements: i64) -> Pointer<'c> {
        if elements == 0 {
            return p;
        }
        let Ok(constant) = i32::try_from(elements) else {
            return self.advance(p, self.index(elements), 1);
        };
        let ty: Attribute<'c> = TypeAttribute::new(self.ty(p.elem, 1)).into();
        let indices = self.i32_array(&[constant]);
        let attributes = [("elem_type", ty), ("rawConstantIndices", indices)];
        let address = self.op1(
            "llvm.getelementptr",
            &[p.address],
            (p.address.elem, 1),
            &attributes,
        );
        Pointer { address, ..p }
    }

    /// `p + by * stride`
    pub fn advance(&self, p: Pointer<'c>, by: Val<'c>, stride: i64) -> Pointer<'c> {
        if stride == 0 {
            return p;
        }
        let offset = match stride {
            1 => by,
            _ => self.mul(by, self.index(stride)),
        };
        Pointer {
            address: self.address(p.address, p.elem, offset),
            ..p
        }
    }

    /// `condition ? a : b`
    pub fn choose(&self, condition: Val<'c>, a: Pointer<'c>, b: Pointer<'c>) -> Pointer<'c> {
        Pointer {
            address: self.choose_address(condition, a.address, b.address),
            ..a
        }
    }

    /// The same of plain addresses.
    pub fn choose_address(&self, condition: Val<'c>, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        self.op1("llvm.select", &[condition, a, b], (a.elem, 1), &[])
    }

    /// `lanes` neighbours from `p + at` on.
    pub fn read(&self, p: Pointer<'c>, at: i64, lanes: usize) -> Val<'c> {
        let alignment = [("alignment", self.i64_attribute(p.elem.bytes()))];
        self.op1(
            "llvm.load",
            &[self.shift(p, at).address],
            (p.elem, lanes),
            &alignment,
        )
    }

    /// Stores neighbours from `p + at` on.
    pub fn write(&self, p: Pointer<'c>, at: i64, value: Val<'c>) {
        let alignment = [("alignment", self.i64_attribute(p.elem.bytes()))];
        self.op("llvm.store", &[value, self.shift(p, at).address], &[], &alignment);
    }

    /// A mask of `lanes` lanes, the first `count` of which are set.
    pub fn first_lanes(&self, lanes: usize, count: usize) -> Val<'c> {
        let set: Vec<&str> = (0..lanes)
            .map(|i| if i < count { "true" } else { "false" })
            .collect();
        let text = format!("dense<[{}]> : vector<{lanes}xi1>", set.join(", "));
        let value = [("value", self.parse_attribute(&text))];
        self.op1("arith.constant", &[], (Elem::I1, lanes), &value)
    }

    /// [`Emitter::read`] of the lanes that `mask` has, zeros elsewhere: nothing else is touched.
    pub fn read_where(&self, p: Pointer<'c>, at: i64, mask: Val<'c>) -> Val<'c> {
        let other = self.splat(self.zero(p.elem), mask.lanes);
        let operands = [self.shift(p, at).address, mask, other];
        let alignment = [("alignment", self.i32_attribute(p.elem.bytes()))];
        self.op1(
            "llvm.intr.masked.load",
            &operands,
            (p.elem, mask.lanes),
            &alignment,
        )
    }

    /// [`Emitter::write`] of the lanes that `mask` has.
    pub fn write_where(&self, p: Pointer<'c>, at: i64, value: Val<'c>, mask: Val<'c>) {
        let operands = [value, self.shift(p, at).address, mask];
        let alignment = [("alignment", self.i32_attribute(p.elem.bytes()))];
        self.op("llvm.intr.masked.store", &operands, &[], &alignment);
    }

    /// [`Emitter::read`] of the first `count` lanes, zeros behind them.
    pub fn read_first(&self, p: Pointer<'c>, at: i64, lanes: usize, count: usize) -> Val<'c> {
        match count {
            _ if count == lanes => self.read(p, at, lanes),
            _ => self.read_where(p, at, self.first_lanes(lanes, count)),
        }
    }

    /// [`Emitter::write`] of the first `count` lanes.
    pub fn write_first(&self, p: Pointer<'c>, at: i64, value: Val<'c>, count: usize) {
        match count {
            _ if count == value.lanes => self.write(p, at, value),
            _ => self.write_where(p, at, value, self.first_lanes(value.lanes, count)),
        }
    }

    /// Fetches the cache line of `p + at`, to be written to soon or to be read.
    pub fn prefetch(&self, p: Pointer<'c>, at: i64, write: bool) {
        self.prefetch_into(p, at, write, 3);
    }

    /// Fetches the cache line of `p` into the second cache, to be read later.
    pub fn prefetch_far(&self, p: Pointer<'c>) {
        self.prefetch_into(p, 0, false, 2);
    }

    fn prefetch_into(&self, p: Pointer<'c>, at: i64, write: bool, locality: i64) {
        let attributes = [
            ("rw", self.i32_attribute(i64::from(write))),
            ("hint", self.i32_attribute(locality)),
            ("cache", self.i32_attribute(1)),
        ];
        self.op(
            "llvm.intr.prefetch",
            &[self.shift(p, at).address],
            &[],
            &attributes,
        );
    }

    /// Fetches the lines that come some distance behind `count` elements of `p`, which are read in order and once.
    pub fn fetch_stream(&self, p: Pointer<'c>, count: i64) {
        self.fetch_behind(p, count, (AHEAD / p.elem.bytes(), false));
    }

    /// Fetches the lines that come so many elements behind `count` elements of `p`, to read or to write.
    pub(super) fn fetch_behind(&self, p: Pointer<'c>, count: i64, (elements, write): (i64, bool)) {
        let lines = (0..count).step_by((LINE / p.elem.bytes()) as usize);
        lines.for_each(|line| self.prefetch(p, elements + line, write));
    }

    /// Copies `count` neighbours, in vectors of `lanes`.
    pub fn copy_run(&self, from: Pointer<'c>, to: Pointer<'c>, count: i64, lanes: usize) {
        self.each_vector(count, lanes, |e, at, active| {
            let (from, to) = (e.advance(from, at, 1), e.advance(to, at, 1));
            e.fetch_stream(from, active as i64);
            e.write_first(to, 0, e.read_first(from, 0, lanes, active), active);
        });
    }

    /// Copies the elements `low..high`, known at run time only, in vectors of `lanes`.
    pub fn copy_between(&self, from: Pointer<'c>, to: Pointer<'c>, [low, high]: [Val<'c>; 2], lanes: usize) {
        let copy = |e: &Self, at: Val<'c>, lanes: usize| {
            let value = e.read(e.advance(from, at, 1), 0, lanes);
            e.write(e.advance(to, at, 1), 0, value);
        };
        let width = self.index(lanes as i64);
        let vectors = self.div(self.sub(high, low), width);
        self.each_in(self.index(0), vectors, |e, i| {
            copy(e, e.add(low, e.mul(i, width)), lanes)
        });
        let done = self.add(low, self.mul(vectors, width));
        self.each_in(done, high, |e, at| copy(e, at, 1));
    }

    /// Stores `count` zeros, in vectors of `lanes`.
    pub fn zero_run(&self, to: Pointer<'c>, count: i64, lanes: usize) {
        let zero = self.splat(self.zero(to.elem), lanes);
        self.each_vector(count, lanes, |e, at, active| {
            e.write_first(e.advance(to, at, 1), 0, zero, active);
        });
    }

    /// `body` for `0..count` in steps of `lanes`, with the first element and how many elements of the vector there
    /// are: all, but for the last one.
    pub fn each_vector(&self, count: i64, lanes: usize, body: impl Fn(&Self, Val<'c>, usize)) {
        let whole = count / lanes as i64 * lanes as i64;
        if whole == lanes as i64 {
            body(self, self.index(0), lanes);
        } else if whole > 0 {
            let [low, high] = [0, whole].map(|i| self.index(i));
            self.for_range(low, high, lanes as i64, &[], |e, at, _| {
                body(e, at, lanes);
                Vec::new()
            });
        }
        if count > whole {
            body(self, self.index(whole), (count - whole) as usize);
        }
    }

    /// `body` for `low..high` in steps of 1.
    pub fn each_in(&self, low: Val<'c>, high: Val<'c>, body: impl FnOnce(&Self, Val<'c>)) {
        self.for_range(low, high, 1, &[], |e, i, _| {
            body(e, i);
            Vec::new()
        });
    }

    /// [`Emitter::each_of`] with values that `body` returns new ones of.
    pub fn fold_of(
        &self,
        count: i64,
        carried: &[Val<'c>],
        body: impl FnOnce(&Self, Val<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        match count {
            ..1 => carried.to_vec(),
            1 => body(self, self.index(0), carried),
            _ => self.for_range(self.index(0), self.index(count), 1, carried, body),
        }
    }

    /// `body` for `0..count`; no loop where that is one turn.
    pub fn each_of(&self, count: i64, body: impl FnOnce(&Self, Val<'c>)) {
        match count {
            ..1 => {}
            1 => body(self, self.index(0)),
            _ => self.each_in(self.index(0), self.index(count), body),
        }
    }
}
