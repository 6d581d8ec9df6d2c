//! Nodes with schedules as a graph, and its code as a shared object in this process.

use std::ptr::null_mut;

use libloading::{Library, Symbol};
use syncbn_abi::{StepArguments, symbols};
use syncbn_codegen::{Cpu, CpuFlag, Emit, generate};
use syncbn_ir::ops::{Identity, Input, Parameter, ParameterData, Role};
use syncbn_ir::{
    Arena, DType, Dim, Graph, Layout, Location, NodeId, Op, Output, OutputKind, Schedule, Shape, TensorType,
    Value,
};
use syncbn_mlir::{Part, Products, Program};

/// One node to run.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The operator.
    pub op: Op,
    /// Types of its operands, with their layouts.
    pub operands: Vec<TensorType>,
    /// Layout of its first result.
    pub result: Layout,
    /// How it is computed.
    pub schedule: Schedule,
    /// Largest error, as a share of the largest reference magnitude.
    pub tolerance: f64,
    /// Added to its bias.
    pub mean: f64,
}

/// Memory that is aligned as arenas are.
pub struct Memory(Vec<[u64; 8]>);

impl Memory {
    /// Memory of words that are all the same.
    pub fn of(bytes: usize, word: u64) -> Memory {
        Memory(vec![[word; 8]; bytes / 64 + 2])
    }

    /// All its words from the first byte on.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.0.as_flattened();
        let skipped = self.0.as_ptr().cast::<u8>().align_offset(64) / 8;
        words[skipped..words.len() - 8 + skipped].iter().copied()
    }

    /// Its first byte.
    pub fn address(&mut self) -> *mut u8 {
        let start = self.0.as_mut_ptr().cast::<u8>();
        start.wrapping_add(start.align_offset(64))
    }
}

/// Bytes of something with a line of memory behind it that nothing writes to.
pub fn guarded(bytes: u64) -> u64 {
    bytes.next_multiple_of(64) + 64
}

/// An operand that is no batch.
pub struct Weights {
    pub name: String,
    pub ty: TensorType,
    /// Where it lies.
    pub offset: u64,
    /// Mean of its values.
    pub mean: f64,
}

/// A graph of all cases, each with operands, a workspace and results of its own.
pub struct Build {
    pub graph: Graph,
    pub steps: Vec<NodeId>,
    /// Copies of weights that cases read transformed.
    pub copies: Vec<NodeId>,
    pub inputs: Vec<(String, TensorType)>,
    pub parameters: Vec<Weights>,
    /// Results of all cases, with the number of the case that each is of.
    pub results: Vec<(usize, TensorType)>,
    pub weight_bytes: u64,
    pub step_bytes: u64,
    pub bound: usize,
}

impl Build {
    /// A copy of weights in this layout.
    fn transformed(&mut self, w: Value, layout: Layout) -> Value {
        let copy = self.graph.add_value(Identity {}, "transformed", &[w]).unwrap();
        let output = &mut self.graph.node_mut(copy.node).outputs[0];
        output.ty.layout = layout;
        output.location = Some(Location {
            arena: Arena::Step,
            offset: self.step_bytes,
        });
        self.step_bytes += guarded(output.ty.bytes(0).unwrap());
        self.copies.push(copy.node);
        copy
    }

    /// Bytes for the parts of sums of any case.
    pub fn partial_bytes(&self) -> u64 {
        let of_steps = self
            .steps
            .iter()
            .map(|&id| self.graph.partial_bytes(id, self.bound));
        of_steps.max().unwrap()
    }
}

/// A graph of these cases, for batches up to `bound`.
pub fn build(cases: &[Case], bound: usize) -> Build {
    let mut b = Build {
        graph: Graph::new("schedules"),
        steps: Vec::new(),
        copies: Vec::new(),
        inputs: Vec::new(),
        parameters: Vec::new(),
        results: Vec::new(),
        weight_bytes: 0,
        step_bytes: 0,
        bound,
    };
    for (i, case) in cases.iter().enumerate() {
        let mut operands = Vec::new();
        for (slot, ty) in case.operands.iter().enumerate() {
            let name = format!("{i}.{slot}");
            let location;
            let op: Op = match ty.shape.has_batch() {
                true => {
                    location = Location {
                        arena: Arena::Inputs,
                        offset: b.inputs.len() as u64,
                    };
                    b.inputs.push((name.clone(), ty.clone()));
                    Input {
                        name: name.clone(),
                        role: Role::Data,
                        ty: ty.clone(),
                    }
                    .into()
                }
                false => {
                    location = Location {
                        arena: Arena::Weights,
                        offset: b.weight_bytes,
                    };
                    b.parameters.push(Weights {
                        name: name.clone(),
                        ty: ty.clone(),
                        offset: b.weight_bytes,
                        mean: if slot == 2 { case.mean } else { 0.0 },
                    });
                    b.weight_bytes += ty.bytes(0).unwrap().next_multiple_of(64);
                    let data = ParameterData::Fill(0.0);
                    Parameter {
                        name: name.clone(),
                        trained: true,
                        ty: ty.clone(),
                        data,
                    }
                    .into()
                }
            };
            let id = b.graph.add(op, &name, &[]).unwrap();
            b.graph.node_mut(id).outputs[0].ty = ty.clone();
            b.graph.node_mut(id).outputs[0].location = Some(location);
            operands.push(Value::from(id));
        }
        if let Some(layout) = case.schedule.transformed_filter() {
            operands[1] = b.transformed(operands[1], layout);
        }
        let id = b
            .graph
            .add(case.op.clone(), &format!("node{i}"), &operands)
            .unwrap();
        let node = b.graph.node_mut(id);
        node.outputs[0].ty.layout = case.result;
        for output in &mut node.outputs {
            output.location = Some(Location {
                arena: Arena::Outputs,
                offset: b.results.len() as u64,
            });
            b.results.push((i, output.ty.clone()));
        }
        node.schedule = Some(case.schedule);
        let slots = node.outputs.len();
        let bytes = b.graph.workspace_bytes(id, bound);
        b.graph.node_mut(id).workspace = Some(Location {
            arena: Arena::Step,
            offset: b.step_bytes,
        });
        b.step_bytes += guarded(bytes);
        let first = b.results.len() - slots;
        b.graph.outputs.extend((0..slots).map(|slot| Output {
            kind: OutputKind::Output,
            name: format!("{}", first + slot),
            value: Value { node: id, slot },
        }));
        b.steps.push(id);
    }
    b
}

/// The runtime's barrier, for as many threads as the context says.
const BARRIER: &str = "
#include <sched.h>
static _Atomic int arrived, round;
int syncbn_team_barrier(void *context) {
    int before = round;
    if (++arrived == *(int *)context) {
        arrived = 0;
        ++round;
    }
    while (round == before) sched_yield();
    return 0;
}
";

/// The code of a graph, in this process.
pub fn compile(b: &Build, vector_bytes: usize, dtype: DType) -> Library {
    let cpu = &Cpu::new(CpuFlag::Native);
    let nodes = [b.copies.as_slice(), &b.steps].concat();
    let program = Program {
        train: None,
        infer: Some(Part {
            graph: &b.graph,
            prepare: &[],
            step: &nodes,
        }),
        dtype,
        vector_bytes,
        products: Products::Exact,
        batch_bound: b.bound,
        trained_elements: b.weight_bytes / dtype.bytes(),
    };
    let folder = tempfile::tempdir().unwrap();
    if let Ok(file) = std::env::var("SYNCBN_ASSEMBLY") {
        let asm = generate(&program, cpu, Emit::Asm, &mut |_| {}).unwrap();
        std::fs::write(file, asm).unwrap();
    }
    let object = generate(&program, cpu, Emit::Object, &mut |_| {}).unwrap();
    let (object_file, stub, shared) = ["k.o", "stub.c", "k.so"]
        .map(|name| folder.path().join(name))
        .into();
    std::fs::write(&object_file, object).unwrap();
    let names = [
        symbols::ALL_REDUCE,
        symbols::TRACE,
        "syncbn_infer_constants",
        "syncbn_train_constants",
    ];
    let mut source: String = names.iter().map(|name| format!("char {name}[1];\n")).collect();
    source += BARRIER;
    std::fs::write(&stub, source).unwrap();
    let linked = std::process::Command::new("cc")
        .args(["-shared", "-o"])
        .args([&shared, &object_file, &stub])
        .status()
        .unwrap();
    assert!(linked.success());
    // SAFETY: the object has no initialisers.
    unsafe { Library::new(&shared).unwrap() }
}

/// The arguments of a step on `n` samples; what `inputs` and `outputs` point to must stay.
pub fn arguments(
    [weights, step, partials]: [&mut Memory; 3],
    inputs: &[*const u8],
    outputs: &[*mut u8],
    n: usize,
) -> StepArguments {
    StepArguments {
        context: null_mut(),
        weights: weights.address(),
        gradients: null_mut(),
        statistics: null_mut(),
        prepared: null_mut(),
        step: step.address(),
        inputs: inputs.as_ptr(),
        outputs: outputs.as_ptr(),
        loss: null_mut(),
        n: n as i64,
        total: n as i64,
        ranks: 1,
        trace: 0,
        thread: 0,
        threads: 1,
        scratch: std::ptr::null_mut(),
        partials: partials.address(),
    }
}

/// Arguments that go to another thread.
struct Sent(StepArguments);

// SAFETY: what they point to stays while the threads run, which write different parts of it.
unsafe impl Send for Sent {}

/// Runs the code of a graph once, on so many threads, each of which but the first has `scratch` bytes of its own.
pub fn step(library: &Library, arguments: &StepArguments, threads: usize, scratch: u64) {
    // SAFETY: the function has this signature.
    let function: Symbol<unsafe extern "C" fn(*const StepArguments) -> i32> =
        unsafe { library.get(symbols::INFER_STEP.as_bytes()).unwrap() };
    let mut own: Vec<Memory> = (1..threads)
        .map(|_| Memory::of(guarded(scratch) as usize, u64::MAX))
        .collect();
    let mut count = threads as i32;
    let of_thread = |(thread, memory): (usize, &mut Memory)| {
        Sent(StepArguments {
            context: (&raw mut count).cast(),
            thread: thread as u64,
            threads: threads as u64,
            scratch: memory.address(),
            ..*arguments
        })
    };
    let mut none = Memory::of(0, 0);
    let mut all = std::iter::once(&mut none)
        .chain(&mut own)
        .enumerate()
        .map(of_thread);
    let first = all.next().unwrap();
    let function = &function;
    // SAFETY: the arguments hold what the graph was planned for.
    let run = move |Sent(arguments): Sent| unsafe { function(&arguments) };
    std::thread::scope(|scope| {
        let others: Vec<_> = all.map(|sent| scope.spawn(move || run(sent))).collect();
        assert_eq!(run(first), 0);
        for other in others {
            assert_eq!(other.join().unwrap(), 0);
        }
    });
    for memory in &mut own {
        // SAFETY: the memory has so many bytes.
        let guard = unsafe {
            let behind = memory.address().wrapping_add(scratch as usize);
            std::slice::from_raw_parts(behind, (guarded(scratch) - scratch) as usize)
        };
        assert!(
            guard.iter().all(|&byte| byte == 0xFF),
            "a thread wrote behind its memory"
        );
    }
}

/// A type `[batch, channels, spatial...]`.
pub fn image(dtype: DType, channels: usize, spatial: &[usize], layout: Layout) -> TensorType {
    let dims = [&[channels], spatial].concat();
    TensorType {
        layout,
        ..TensorType::new(
            dtype,
            Shape(
                [Dim::Batch]
                    .into_iter()
                    .chain(dims.into_iter().map(Dim::Fixed))
                    .collect(),
            ),
        )
    }
}
