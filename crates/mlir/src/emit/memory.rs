//! Buffers, loads and stores.

use melior::ir::Attribute;
use melior::ir::attribute::{FlatSymbolRefAttribute, TypeAttribute};
use melior::ir::block::BlockLike;

use super::pointer::{AHEAD, Pointer};
use super::{Elem, Emitter, Index, Val};
use crate::handle;

/// A tensor in memory: the map from logical indices to elements.
#[derive(Debug, Clone)]
pub struct Buffer<'c> {
    /// Address of the first element.
    pub pointer: Val<'c>,
    /// Element type in memory.
    pub elem: Elem,
    /// Elements from one index to the next, for every logical axis.
    pub strides: Vec<i64>,
    /// Axis 0 comes in blocks of so many neighbours, and its stride is from one block to the next.
    pub block: Option<i64>,
    /// Element of index 0.
    pub offset: i64,
}

impl<'c> Buffer<'c> {
    /// A buffer with explicit strides.
    pub fn new(pointer: Val<'c>, elem: Elem, strides: &[i64]) -> Buffer<'c> {
        Buffer {
            pointer,
            elem,
            strides: strides.to_vec(),
            block: None,
            offset: 0,
        }
    }
}

impl<'c> Emitter<'c> {
    fn flat(&self, buffer: &Buffer<'c>, at: &[Index<'c>]) -> Index<'c> {
        let mut flat = Index::constant(buffer.offset);
        for (axis, (&i, &stride)) in at.iter().zip(&buffer.strides).enumerate() {
            let mut i = i;
            if let Some(size) = buffer.block.filter(|_| axis == 0) {
                let inside;
                (i, inside) = self.index_split(i, size);
                flat = self.index_add(flat, inside);
            }
            flat = self.index_add(flat, self.index_scale(i, stride));
        }
        flat
    }

    /// The address `pointer + offset` (in elements); one a lane when the offset is a vector.
    pub fn address(&self, pointer: Val<'c>, elem: Elem, offset: Val<'c>) -> Val<'c> {
        let ty = self.ty(elem, 1);
        let ty: Attribute<'c> = TypeAttribute::new(ty).into();
        let dynamic = self.i32_array(&[i32::MIN]);
        self.op1(
            "llvm.getelementptr",
            &[pointer, offset],
            (pointer.elem, offset.lanes),
            &[("elem_type", ty), ("rawConstantIndices", dynamic)],
        )
    }

    /// Memory of the function's own for `count` elements, aligned for every vector. It may be asked for in a loop, and is
    /// the same in every turn.
    pub fn local(&self, elem: Elem, count: i64) -> Buffer<'c> {
        let outer = (self.block.replace(self.entry), self.before.get());
        self.before
            .set(self.entry.first_operation().map(handle::operation));
        let count = self.op1(
            "arith.constant",
            &[],
            (Elem::I64, 1),
            &[("value", self.i64_attribute(count))],
        );
        let ty: Attribute<'c> = TypeAttribute::new(self.ty(elem, 1)).into();
        let attributes = [("elem_type", ty), ("alignment", self.i64_attribute(64))];
        let pointer = self.op1("llvm.alloca", &[count], (Elem::Ptr, 1), &attributes);
        self.block.set(outer.0);
        self.before.set(outer.1);
        Buffer::new(pointer, elem, &[1])
    }

    /// The address of data of the module, of type `elem`.
    pub fn address_of(&self, symbol: &str, elem: Elem) -> Val<'c> {
        let name: Attribute<'c> = FlatSymbolRefAttribute::new(self.context, symbol).into();
        self.op1("llvm.mlir.addressof", &[], (elem, 1), &[("global_name", name)])
    }

    /// Loads one element through an address; one in bf16 becomes f32.
    pub fn load_scalar(&self, address: Val<'c>, elem: Elem) -> Val<'c> {
        let alignment = self.i64_attribute(elem.bytes());
        let loaded = self.op1("llvm.load", &[address], (elem, 1), &[("alignment", alignment)]);
        self.loaded(loaded)
    }

    /// What was loaded, as registers hold it: bf16 becomes f32.
    pub(super) fn loaded(&self, v: Val<'c>) -> Val<'c> {
        match v.elem {
            Elem::BF16 => self.op1("arith.extf", &[v], (Elem::F32, v.lanes), &[]),
            _ => v,
        }
    }

    /// What is to be stored as elements of `elem`: rounded to nearest, ties to even, for bf16.
    pub(super) fn rounded(&self, v: Val<'c>, elem: Elem) -> Val<'c> {
        if elem != Elem::BF16 {
            return v;
        }
        let v = self.convert(v, Elem::F32);
        self.op1("arith.truncf", &[v], (Elem::BF16, v.lanes), &[])
    }

    /// Stores one element, or in lanes neighbouring ones, through an address.
    pub fn store_scalar(&self, address: Val<'c>, value: Val<'c>) {
        let alignment = self.i64_attribute(value.elem.bytes());
        self.op("llvm.store", &[value, address], &[], &[("alignment", alignment)]);
    }

    /// Loads the element (or, when `at` varies over lanes, one element a lane) at a logical index. Where
    /// `guard` is false nothing is read and the result is 0.
    pub fn load(&self, buffer: &Buffer<'c>, at: &[Index<'c>], guard: Option<Val<'c>>) -> Val<'c> {
        let flat = self.flat(buffer, at);
        let lanes = self.lanes();
        let varies = match flat {
            Index::Const { stride, .. } | Index::Scalar { stride, .. } => lanes > 1 && stride != 0,
            Index::Lanes(v) => v.lanes > 1,
        };
        match guard.is_none_or(|g| g.lanes == 1) {
            true if !varies => self.load_together(buffer, flat, guard, 1),
            _ => self.load_lanes(buffer, flat, guard),
        }
    }

    /// [`Emitter::load`] of what is read in order and once. On the CPU the lines that follow at some distance are asked for:
    /// the processor foresees too few of several streams to keep memory busy.
    pub fn load_stream(&self, buffer: &Buffer<'c>, at: &[Index<'c>]) -> Val<'c> {
        self.load_ahead(buffer, at, AHEAD / buffer.elem.bytes())
    }

    /// [`Emitter::load`] of what is read once; on the CPU the lines so many elements further are asked for.
    pub fn load_ahead(&self, buffer: &Buffer<'c>, at: &[Index<'c>], elements: i64) -> Val<'c> {
        self.ask_for(buffer, at, (elements, false));
        self.load(buffer, at, None)
    }

    /// [`Emitter::store`] of what is written in order. On the CPU the lines that follow at some distance are asked for, since
    /// a line that is written to is read first.
    pub fn store_stream(&self, buffer: &Buffer<'c>, at: &[Index<'c>], value: Val<'c>) {
        self.store_ahead(buffer, at, AHEAD / buffer.elem.bytes(), value);
    }

    /// [`Emitter::store`]; on the CPU the lines so many elements further are asked for.
    pub fn store_ahead(&self, buffer: &Buffer<'c>, at: &[Index<'c>], elements: i64, value: Val<'c>) {
        self.ask_for(buffer, at, (elements, true));
        self.store(buffer, at, value);
    }

    /// Fetches the lines so many elements behind neighbours in lanes, to read or to write; nothing on a GPU.
    fn ask_for(&self, buffer: &Buffer<'c>, at: &[Index<'c>], (elements, write): (i64, bool)) {
        let lanes = self.lanes() as i64;
        if self.is_device() || lanes == 1 {
            return;
        }
        let flat = self.flat(buffer, at);
        if let Index::Const { stride: 1, .. } | Index::Scalar { stride: 1, .. } = flat {
            let first = self.address(buffer.pointer, buffer.elem, self.index_base(flat));
            self.fetch_behind(Pointer::new(first, buffer.elem), lanes, (elements, write));
        }
    }

    /// Loads one element or a whole vector; zeros where `guard`, a scalar, is false.
    fn load_together(
        &self,
        buffer: &Buffer<'c>,
        flat: Index<'c>,
        guard: Option<Val<'c>>,
        lanes: usize,
    ) -> Val<'c> {
        let mut base = self.index_base(flat);
        if let Some(guard) = guard {
            // The first element of the buffer always exists, and so does its vector: read where the guard is false.
            let zero = self.index(0);
            base = self.select(guard, base, zero);
        }
        let address = self.address(buffer.pointer, buffer.elem, base);
        let loaded = self.load_vector(address, buffer.elem, lanes);
        match guard {
            Some(guard) => {
                let other = self.zero(loaded.elem);
                self.select(guard, loaded, other)
            }
            None => loaded,
        }
    }

    fn load_lanes(&self, buffer: &Buffer<'c>, flat: Index<'c>, guard: Option<Val<'c>>) -> Val<'c> {
        let (elem, lanes) = (buffer.elem, self.lanes());
        let whole = guard.is_none_or(|g| g.lanes == 1);
        if self.is_device() {
            if whole && self.is_whole_vector(flat, elem) {
                return self.load_together(buffer, flat, guard, lanes);
            }
            self.refuse_lanes();
        }
        let contiguous = matches!(
            flat,
            Index::Const { stride: 1, .. } | Index::Scalar { stride: 1, .. }
        );
        if contiguous && whole {
            return self.load_together(buffer, flat, guard, lanes);
        }
        if let (true, Some(guard)) = (contiguous, guard) {
            let address = self.address(buffer.pointer, elem, self.index_base(flat));
            let (mask, other) = (self.splat(guard, lanes), self.zero(elem));
            let other = self.splat(other, lanes);
            let alignment = self.i32_attribute(elem.bytes());
            let attributes = [("alignment", alignment)];
            return self.op1(
                "llvm.intr.masked.load",
                &[address, mask, other],
                (elem, lanes),
                &attributes,
            );
        }
        let offsets = self.index_lanes(flat);
        let addresses = self.address(buffer.pointer, elem, offsets);
        let mask = match guard {
            Some(guard) => guard,
            None => self.int(Elem::I1, 1),
        };
        let (mask, other) = (self.splat(mask, lanes), self.zero(elem));
        let other = self.splat(other, lanes);
        let alignment = self.i32_attribute(elem.bytes());
        let attributes = [("alignment", alignment)];
        self.op1(
            "llvm.intr.masked.gather",
            &[addresses, mask, other],
            (elem, lanes),
            &attributes,
        )
    }

    /// Stores at a logical index, which must be uniform for a scalar; a scalar is splat when the index varies.
    pub fn store(&self, buffer: &Buffer<'c>, at: &[Index<'c>], value: Val<'c>) {
        let flat = self.flat(buffer, at);
        let (elem, lanes) = (buffer.elem, self.lanes());
        if self.is_device() && lanes > 1 {
            if self.is_whole_vector(flat, elem) {
                let base = self.index_base(flat);
                let address = self.address(buffer.pointer, elem, base);
                let value = self.splat(value, lanes);
                self.store_vector(address, elem, value);
                return;
            }
            self.refuse_lanes();
        }
        let value = self.rounded(value, elem);
        match flat {
            Index::Const { stride, .. } | Index::Scalar { stride, .. }
                if lanes == 1 || stride == 0 || stride == 1 =>
            {
                let base = self.index_base(flat);
                let address = self.address(buffer.pointer, elem, base);
                let value = if stride == 0 {
                    value
                } else {
                    self.splat(value, lanes)
                };
                self.store_scalar(address, value);
            }
            _ => {
                let offsets = self.index_lanes(flat);
                let addresses = self.address(buffer.pointer, elem, offsets);
                let value = self.splat(value, lanes);
                let all = self.int(Elem::I1, 1);
                let mask = self.splat(all, lanes);
                let alignment = self.i32_attribute(elem.bytes());
                let attributes = [("alignment", alignment)];
                self.op(
                    "llvm.intr.masked.scatter",
                    &[value, addresses, mask],
                    &[],
                    &attributes,
                );
            }
        }
    }

    /// 0 of any element type.
    pub fn zero(&self, elem: Elem) -> Val<'c> {
        if elem.is_float() {
            self.float(elem, 0.0)
        } else {
            self.int(elem, 0)
        }
    }
}
