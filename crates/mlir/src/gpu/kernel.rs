//! Kernels: one or more for each distinct operator, or for all whose plan or code is alike.

use syncbn_abi::{GpuKernel, GpuParameter};
use syncbn_ir::TensorType;
use syncbn_ir::schedule::{ThreadSums, gpu_workspace};

use super::Lowering;
use super::join_kernels::{Definition, join};
use super::launches::Launch;
use super::machine::Gpu;
use super::traffic::traffic;
use crate::emit::{COPY_BYTES, Device, Emitter, Footprint, Key, Numbers, Work};
use crate::error::LowerError;
use crate::host::{Call, Parameter};
use crate::ops;
use crate::ops::kernel::Kernel;
use crate::ops::stage::{Plan, Stage};
use crate::ops::target::Target;

/// All that decides the code of a planned kernel.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Planned {
    op: &'static str,
    operands: usize,
    overlaps: Vec<bool>,
    key: Key,
}

impl Planned {
    fn new(call: &Call, plan: &Plan) -> Planned {
        Planned {
            op: call.op.name(),
            operands: call.operands,
            overlaps: call.overlaps.to_vec(),
            key: plan.key.clone(),
        }
    }
}

/// A kernel that was built, or would have been if there were not one of its code.
struct Built<'c> {
    name: String,
    numbers: Numbers,
    footprint: Footprint,
    leaves_parts: bool,
    definition: Option<Definition<'c>>,
}

/// Symbol of the open numbers of the kernel of this index, in host code.
pub fn numbers_symbol(index: i64) -> String {
    format!("numbers_{index}")
}

/// What a kernel may touch through a tensor.
fn touched(ty: &TensorType, written: bool) -> GpuParameter {
    let bytes = ty.bytes(1).unwrap_or(0);
    let batch = ty.shape.has_batch();
    GpuParameter {
        bytes: if batch { 0 } else { bytes },
        bytes_per_sample: if batch { bytes } else { 0 },
        written,
    }
}

impl<'c> Lowering<'c> {
    /// The launches for an operator on these types, whose kernels were made.
    pub(super) fn launches(&mut self, call: &Call) -> Result<Vec<Launch>, LowerError> {
        let launches = self.launches.get(&call.key()).cloned();
        let launches = launches.ok_or_else(|| LowerError::Internal {
            message: format!("no kernel was made for {}", call.label),
        })?;
        for launch in &launches {
            let kernel = &mut self.lowered.kernels[launch.index as usize];
            if self.noted.insert((launch.index, call.label.to_string())) {
                kernel.nodes.push(call.label.to_string());
            }
            self.sources.note(&kernel.name, call);
        }
        Ok(launches)
    }

    /// What operators ask.
    fn target(&self) -> Gpu {
        Gpu {
            products: self.products,
            batch_bound: self.batch_bound,
        }
    }

    /// Makes the kernels for an operator on these types, unless they were made before.
    pub(super) fn make_kernels(&mut self, call: &Call) -> Result<(), LowerError> {
        let key = call.key();
        if self.launches.contains_key(&key) {
            return Ok(());
        }
        self.check_size(call)?;
        let number = self.launches.len();
        let target = self.target();
        let (operands, results) = call.split();
        let mut names = (0..).map(|made| match made {
            0 => format!("{}_{number}", call.op.name()),
            _ => format!("{}_{number}_{made}", call.op.name()),
        });
        let mut launches = Vec::new();
        for stage in ops::stages(call.op, &target, &(operands, results, call.schedule).into())? {
            let first = self.build(names.by_ref(), &stage, false, call)?;
            self.check_workspace(call, &first.footprint)?;
            let leaves_parts = first.leaves_parts;
            launches.extend(self.launch_of(first, call));
            if leaves_parts {
                let second = self.build(names.by_ref(), &stage, true, call)?;
                self.check_workspace(call, &second.footprint)?;
                launches.extend(self.launch_of(second, call));
            }
        }
        self.launches.insert(key, launches);
        Ok(())
    }

    /// The launch of a kernel, which it describes; None of one that has nothing to do.
    fn launch_of(&mut self, built: Built<'c>, call: &Call) -> Option<Launch> {
        let footprint = built.footprint;
        if footprint.work == Work::default() {
            return None;
        }
        let index = self.describe(built.name, &footprint, call);
        self.give_numbers(index, built.numbers.values());
        let definition = built.definition.map(|definition| (index, definition));
        self.separate.extend(definition);
        Some(Launch {
            work: footprint.work,
            blocks: footprint.blocks,
            index: index as i64,
            traffic: traffic(call, &footprint.cost, self.batch_bound as usize),
            cost: footprint.cost,
        })
    }

    /// Describes a kernel of this symbol: the index of the description.
    fn describe(&mut self, name: String, footprint: &Footprint, call: &Call) -> usize {
        let tensors = call.types.iter().enumerate();
        let mut parameters: Vec<GpuParameter> =
            tensors.map(|(i, ty)| touched(ty, i >= call.operands)).collect();
        parameters.push(GpuParameter {
            bytes: footprint.workspace_bytes as u64,
            bytes_per_sample: 0,
            written: true,
        });
        self.lowered.kernels.push(GpuKernel {
            name,
            block: footprint.blocks.threads,
            shared: footprint.blocks.shared,
            cooperative: footprint.blocks.cooperative,
            parameters: Some(parameters),
            numbers: 0,
            nodes: Vec::new(),
        });
        self.lowered.kernels.len() - 1
    }

    /// Has launches of the kernel of this index come with open numbers.
    fn give_numbers(&mut self, index: usize, numbers: &[i32]) {
        if !numbers.is_empty() {
            self.lowered.kernels[index].numbers = numbers.len() as u32;
            self.functions
                .define_numbers(&numbers_symbol(index as i64), numbers);
        }
    }

    /// Puts the kernels that were made into the module; those that differ in constants only become one.
    pub(super) fn join_kernels(&mut self) {
        let separate = std::mem::take(&mut self.separate);
        for kernel in join(self.functions.context, separate) {
            for (index, numbers) in &kernel.launches {
                self.lowered.kernels[*index]
                    .name
                    .clone_from(&kernel.definition.name);
                self.give_numbers(*index, numbers);
            }
            kernel.definition.define(&self.device);
        }
    }

    /// A kernel has no more memory than `plan-memory` gave its node.
    fn check_workspace(&self, call: &Call, footprint: &Footprint) -> Result<(), LowerError> {
        let (operands, results) = call.split();
        let bound = self.batch_bound as usize;
        let planned = match call.has_workspace {
            true => gpu_workspace(call.op, call.schedule, operands, results, bound),
            false => 0,
        };
        match footprint.workspace_bytes as u64 {
            needed if needed > planned => Err(LowerError::Internal {
                message: format!(
                    "{} \"{}\" needs {needed} bytes besides its tensors, and its plan has {planned}",
                    call.op.name(),
                    call.label
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Kernels count elements in i32, and the number of a thread plus that of all threads must fit too.
    fn check_size(&self, call: &Call) -> Result<(), LowerError> {
        let elements = |ty: &&TensorType| Some(ty.bytes(self.batch_bound as usize)? / ty.dtype.bytes());
        let fits = |ty: &&TensorType| elements(ty).is_some_and(|n| n < 1 << 30);
        match call.types.iter().all(fits) && self.trained_elements < 1 << 30 {
            true => Ok(()),
            false => Err(LowerError::Unsupported(vec![crate::error::Unsupported {
                node: call.label.to_string(),
                op: call.op.name().to_string(),
                message: "a tensor has 2^30 elements or more at this batch".to_string(),
                help: "use a smaller --batch".to_string(),
            }])),
        }
    }

    /// Builds the kernel of a stage, or the second one, which merges what the first one left of a sum. It has the next of
    /// `names`, unless its plan says that there is such a kernel.
    fn build(
        &mut self,
        names: &mut dyn Iterator<Item = String>,
        stage: &Stage,
        merges: bool,
        call: &Call,
    ) -> Result<Built<'c>, LowerError> {
        let name = names.next().unwrap_or_default();
        if let Some(plan) = &stage.plan {
            let planned = Planned::new(call, plan);
            if let Some(known) = self.planned.get(&planned) {
                return Ok(Built {
                    name: known.clone(),
                    numbers: plan.numbers.clone(),
                    footprint: plan.footprint,
                    leaves_parts: false,
                    definition: None,
                });
            }
            self.planned.insert(planned, name.clone());
        }
        let mut parameters = call.parameters();
        parameters.extend([Parameter::Exclusive, Parameter::Index, Parameter::Size]);
        let location = self.functions.location(call.label);
        let (region, block, arguments) = self.device.body(&parameters, location);
        let (tensors, rest) = arguments.split_at(call.types.len());
        let (workspace, n, total) = (rest[0], rest[1], rest[2]);
        let kernel = Kernel::new(
            call.types,
            call.operands,
            tensors,
            [n, total],
            (COPY_BYTES as usize, self.target().manner()),
        );
        let (operands, results) = call.split();
        let sums = ThreadSums::of(call.op, operands, results, self.batch_bound as usize);
        let parts = sums.map_or(1, |sums| sums.parts());
        let device = Device::new(self.batch_bound, [n, workspace], (parts, merges));
        let e = Emitter::of_device(self.functions.context, location, block, device);
        if let Some(plan) = &stage.plan {
            let count = plan.numbers.values().len();
            parameters.push(Parameter::Numbers(count));
            e.open_numbers(count);
        }
        stage.emit(&kernel, &e)?;
        e.op("llvm.return", &[], &[], &[]);
        let Some(device) = e.into_device() else {
            return Err(LowerError::Internal {
                message: "a kernel lost its state".to_string(),
            });
        };
        let plan = stage.plan.as_ref();
        let footprint = plan.map_or(device.footprint, |plan| plan.footprint);
        let definition = Definition {
            name: name.clone(),
            op: call.op.name(),
            readonly: (0..parameters.len())
                .map(|i| i < call.operands && !call.overlaps[i])
                .collect(),
            parameters,
            blocks: footprint.blocks,
            location,
            region,
        };
        Ok(Built {
            name,
            numbers: plan.map(|plan| plan.numbers.clone()).unwrap_or_default(),
            footprint,
            leaves_parts: device.leaves_parts,
            definition: Some(definition),
        })
    }
}
