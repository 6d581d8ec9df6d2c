//! What the threads of a block do together: shared memory, asynchronous copies, barriers, matrix instructions.

use std::ops::Range;

use melior::dialect::llvm;
use melior::ir::Attribute;
use melior::ir::attribute::DenseI64ArrayAttribute;

use super::{Elem, Emitter, Index, Val};
use crate::handle;

/// Symbol of a block's dynamic shared memory.
pub const SHARED_MEMORY: &str = "shared_memory";

/// Bytes of an asynchronous copy.
pub const COPY_BYTES: i64 = syncbn_ir::schedule::COPY_BYTES as i64;

impl<'c> Emitter<'c> {
    /// A special register.
    pub fn special_register(&self, name: &str) -> Index<'c> {
        let operation = format!("nvvm.read.ptx.sreg.{name}");
        Index::uniform(self.op1(&operation, &[], (Elem::I32, 1), &[]))
    }

    /// The block's shared memory.
    pub fn shared_memory(&self) -> Val<'c> {
        self.address_of(SHARED_MEMORY, Elem::SharedPtr)
    }

    /// The address `offset` elements after `pointer`.
    pub fn address_at(&self, pointer: Val<'c>, elem: Elem, offset: Index<'c>) -> Val<'c> {
        let offset = self.index_value(offset);
        self.address(pointer, elem, offset)
    }

    /// Loads a vector, aligned to its size or to [`COPY_BYTES`].
    pub fn load_vector(&self, address: Val<'c>, elem: Elem, lanes: usize) -> Val<'c> {
        let alignment = self.vector_alignment(elem, lanes);
        let loaded = self.op1(
            "llvm.load",
            &[address],
            (elem, lanes),
            &[("alignment", alignment)],
        );
        self.loaded(loaded)
    }

    /// Stores a vector as elements of `elem`, aligned to its size or to [`COPY_BYTES`]; returns what a load would.
    pub fn store_vector(&self, address: Val<'c>, elem: Elem, value: Val<'c>) -> Val<'c> {
        let alignment = self.vector_alignment(elem, value.lanes);
        let value = self.rounded(value, elem);
        self.op("llvm.store", &[value, address], &[], &[("alignment", alignment)]);
        self.loaded(value)
    }

    fn vector_alignment(&self, elem: Elem, lanes: usize) -> Attribute<'c> {
        // On a GPU a whole vector begins at a multiple of its size, on the CPU anywhere.
        let whole = if self.is_device() { lanes as i64 } else { 1 };
        self.i64_attribute((elem.bytes() * whole).min(COPY_BYTES))
    }

    /// A vector of scalars.
    pub fn vector(&self, scalars: &[Val<'c>]) -> Val<'c> {
        let elem = scalars[0].elem;
        self.op1("vector.from_elements", scalars, (elem, scalars.len()), &[])
    }

    /// These lanes of those of `a` followed by those of `b`.
    pub fn shuffle(&self, [a, b]: [Val<'c>; 2], lanes: Range<usize>) -> Val<'c> {
        self.pick_lanes([a, b], &lanes.collect::<Vec<usize>>())
    }

    /// [`Emitter::shuffle`] of lanes in any order.
    pub fn pick_lanes(&self, [a, b]: [Val<'c>; 2], lanes: &[usize]) -> Val<'c> {
        let count = lanes.len();
        let numbers: Vec<String> = lanes.iter().map(|i| i.to_string()).collect();
        let mask = self.parse_attribute(&format!("array<i64: {}>", numbers.join(", ")));
        self.op1("vector.shuffle", &[a, b], (a.elem, count), &[("mask", mask)])
    }

    /// All threads of the block meet.
    pub fn barrier(&self) {
        self.op("nvvm.barrier0", &[], &[], &[]);
    }

    /// Starts a copy of [`COPY_BYTES`] from global to shared memory; where `guard` is false the destination
    /// becomes 0 and nothing is read.
    pub fn copy_async(&self, to: Val<'c>, from: Val<'c>, guard: Option<Val<'c>>) {
        let all = self.int(Elem::I32, COPY_BYTES);
        let bytes = match guard {
            Some(guard) => {
                let none = self.int(Elem::I32, 0);
                self.select(guard, all, none)
            }
            None => all,
        };
        let attributes = [
            ("size", self.i32_attribute(COPY_BYTES)),
            ("modifier", self.parse_attribute("#nvvm<load_cache_modifier cg>")),
        ];
        self.op(
            "nvvm.cp.async.shared.global",
            &[to, from, bytes],
            &[],
            &attributes,
        );
    }

    /// Makes the copies since the last call a group.
    pub fn commit_copies(&self) {
        self.op("nvvm.cp.async.commit.group", &[], &[], &[]);
    }

    /// Waits until at most `pending` groups of copies of this thread are under way.
    pub fn wait_for_copies(&self, pending: i64) {
        let n = self.i32_attribute(pending);
        self.op("nvvm.cp.async.wait.group", &[], &[], &[("n", n)]);
    }

    /// Loads four 8x4 matrices of 32-bit words from shared memory: lane `8 m + r` gives the address of row `r`
    /// of matrix `m`, and lane `l` gets word `l % 4` of row `l / 4` of each. With `transposed` they are 8x8 matrices of
    /// 16-bit elements, and the lane's words hold elements `2 (l % 4)` and the next of column `l / 4`.
    pub fn load_matrices(&self, address: Val<'c>, transposed: bool) -> [Val<'c>; 4] {
        let layout = match transposed {
            true => "#nvvm.mma_layout<col>",
            false => "#nvvm.mma_layout<row>",
        };
        let attributes = [
            ("num", self.i32_attribute(4)),
            ("layout", self.parse_attribute(layout)),
            (
                "shape",
                self.parse_attribute("#nvvm.ld_st_matrix_shape<m = 8, n = 8>"),
            ),
            (
                "eltType",
                self.parse_attribute("#nvvm.ld_st_matrix_elt_type<b16>"),
            ),
        ];
        self.four("nvvm.ldmatrix", &[address], Elem::I32, &attributes)
    }

    /// An f32 rounded to tf32, to nearest with ties away from zero, as the bits that matrix instructions take.
    pub fn round_to_tf32(&self, x: Val<'c>) -> Val<'c> {
        let rounding = self.parse_attribute("#nvvm.fp_rnd_mode<rna>");
        self.op1(
            "nvvm.convert.float.to.tf32",
            &[x],
            (Elem::I32, 1),
            &[("rnd", rounding)],
        )
    }

    /// `D = A B + C` of a warp: A is 16x8 and B is 8x8 in tf32, C and D are 16x8 in f32.
    pub fn multiply_tf32(&self, a: [Val<'c>; 4], b: [Val<'c>; 2], c: [Val<'c>; 4]) -> [Val<'c>; 4] {
        let tf32 = self.parse_attribute("#nvvm.mma_type<tf32>");
        let attributes = [
            ("layoutA", self.parse_attribute("#nvvm.mma_layout<row>")),
            ("layoutB", self.parse_attribute("#nvvm.mma_layout<col>")),
            ("multiplicandAPtxType", tf32),
            ("multiplicandBPtxType", tf32),
            ("shape", self.parse_attribute("#nvvm.shape<m = 16, n = 8, k = 8>")),
            ("operandSegmentSizes", self.i32_array(&[4, 2, 4])),
        ];
        let operands = [&a[..], &b, &c].concat();
        self.four("nvvm.mma.sync", &operands, Elem::F32, &attributes)
    }

    /// `D = A B + C` of a warp: A is 16x16 and B is 16x8 in bf16, two elements a word; C and D are 16x8 in f32.
    pub fn multiply_bf16(&self, a: [Val<'c>; 4], b: [Val<'c>; 2], c: [Val<'c>; 4]) -> [Val<'c>; 4] {
        let bf16 = self.parse_attribute("#nvvm.mma_type<bf16>");
        let attributes = [
            ("layoutA", self.parse_attribute("#nvvm.mma_layout<row>")),
            ("layoutB", self.parse_attribute("#nvvm.mma_layout<col>")),
            ("multiplicandAPtxType", bf16),
            ("multiplicandBPtxType", bf16),
            (
                "shape",
                self.parse_attribute("#nvvm.shape<m = 16, n = 8, k = 16>"),
            ),
            ("operandSegmentSizes", self.i32_array(&[4, 2, 4])),
        ];
        let operands = [&a[..], &b, &c].concat();
        self.four("nvvm.mma.sync", &operands, Elem::F32, &attributes)
    }

    /// An operation whose result is a structure of four scalars.
    fn four(
        &self,
        name: &str,
        operands: &[Val<'c>],
        elem: Elem,
        attributes: &[(&str, Attribute<'c>)],
    ) -> [Val<'c>; 4] {
        let scalar = self.ty(elem, 1);
        let structure = llvm::r#type::r#struct(self.context, &[scalar; 4], false);
        let operation = self.append(name, operands, &[structure], attributes, Vec::new(), &[]);
        let Ok(result) = operation.result(0) else {
            unreachable!("{name} was built with one result");
        };
        let result = Val {
            value: handle::result(result),
            elem,
            lanes: 4,
        };
        [0, 1, 2, 3].map(|i| {
            let position: Attribute<'c> = DenseI64ArrayAttribute::new(self.context, &[i]).into();
            self.op1(
                "llvm.extractvalue",
                &[result],
                (elem, 1),
                &[("position", position)],
            )
        })
    }
}
