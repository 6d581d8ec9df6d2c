//! Compiles nodes with schedules to a shared object, runs them on random data in this process, and compares with the
//! reference evaluation.

use std::collections::BTreeMap;
use std::ptr::null_mut;

use libloading::{Library, Symbol};
use syncbn_abi::{StepArguments, symbols};
use syncbn_codegen::{Cpu, CpuFlag, Emit, generate};
use syncbn_ir::interpreter::{RankInputs, State, evaluate};
use syncbn_ir::ops::{Input, Parameter, ParameterData, Role};
use syncbn_ir::{
    Arena, Array, DType, Dim, Graph, Layout, Location, NodeId, Op, Output, OutputKind, Schedule, Shape,
    TensorType, Value,
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
}

/// The batch bound of all cases.
pub const BOUND: usize = 5;

/// Memory that is aligned as arenas are.
struct Memory(Vec<[u64; 8]>);

#[repr(align(64))]
struct Aligned;

impl Memory {
    fn new(bytes: usize) -> Memory {
        let _ = Aligned;
        Memory(vec![[u64::MAX; 8]; bytes / 64 + 2])
    }

    fn address(&mut self) -> *mut u8 {
        let start = self.0.as_mut_ptr().cast::<u8>();
        start.wrapping_add(start.align_offset(64))
    }
}

/// Numbers in `[-1, 1)` that look random.
pub fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

fn sizes(ty: &TensorType, n: usize) -> Vec<usize> {
    ty.shape.0.iter().map(|d| d.size(n)).collect()
}

/// Where each element, in logical order, lies in memory.
fn places(ty: &TensorType, n: usize) -> Vec<usize> {
    let sizes = sizes(ty, n);
    let count: usize = sizes.iter().product();
    let rank = sizes.len();
    (0..count)
        .map(|mut flat| {
            let mut at = vec![0; rank];
            for axis in (0..rank).rev() {
                at[axis] = flat % sizes[axis];
                flat /= sizes[axis];
            }
            let fold = |order: &[usize]| order.iter().fold(0, |sum, &axis| sum * sizes[axis] + at[axis]);
            let last: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
            match ty.layout {
                Layout::Nhwc if rank > 2 => fold(&last),
                Layout::Filter(lanes) => {
                    let inner = last[1..]
                        .iter()
                        .fold(0, |sum, &axis| sum * sizes[axis] + at[axis]);
                    let block: usize = last[1..].iter().map(|&axis| sizes[axis]).product();
                    (at[0] / lanes * block + inner) * lanes + at[0] % lanes
                }
                _ => fold(&(0..rank).collect::<Vec<_>>()),
            }
        })
        .collect()
}

fn stored(ty: &TensorType, n: usize) -> usize {
    (ty.bytes(n).unwrap() / ty.dtype.bytes()) as usize
}

fn write(to: *mut u8, ty: &TensorType, n: usize, values: &[f64]) {
    // SAFETY: the caller's memory has `stored` elements at `to`.
    unsafe {
        match ty.dtype {
            DType::F32 => {
                let to = std::slice::from_raw_parts_mut(to.cast::<f32>(), stored(ty, n));
                to.fill(0.0);
                places(ty, n)
                    .iter()
                    .zip(values)
                    .for_each(|(&at, &v)| to[at] = v as f32);
            }
            _ => {
                let to = std::slice::from_raw_parts_mut(to.cast::<f64>(), stored(ty, n));
                to.fill(0.0);
                places(ty, n).iter().zip(values).for_each(|(&at, &v)| to[at] = v);
            }
        }
    }
}

fn read(from: *const u8, ty: &TensorType, n: usize) -> Vec<f64> {
    // SAFETY: as in `write`.
    unsafe {
        match ty.dtype {
            DType::F32 => {
                let from = std::slice::from_raw_parts(from.cast::<f32>(), stored(ty, n));
                places(ty, n).iter().map(|&at| from[at] as f64).collect()
            }
            _ => {
                let from = std::slice::from_raw_parts(from.cast::<f64>(), stored(ty, n));
                places(ty, n).iter().map(|&at| from[at]).collect()
            }
        }
    }
}

/// A graph of all cases, each with operands and results of its own.
struct Build {
    graph: Graph,
    steps: Vec<NodeId>,
    inputs: Vec<(String, TensorType)>,
    parameters: Vec<(String, TensorType, u64)>,
    results: Vec<TensorType>,
    weight_bytes: u64,
    step_bytes: u64,
}

fn build(cases: &[Case]) -> Build {
    build_for(cases, BOUND)
}
fn build_for(cases: &[Case], bound: usize) -> Build {
    let mut b = Build {
        graph: Graph::new("schedules"),
        steps: Vec::new(),
        inputs: Vec::new(),
        parameters: Vec::new(),
        results: Vec::new(),
        weight_bytes: 0,
        step_bytes: 0,
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
                    b.parameters.push((name.clone(), ty.clone(), b.weight_bytes));
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
        let id = b
            .graph
            .add(case.op.clone(), &format!("node{i}"), &operands)
            .unwrap();
        let node = b.graph.node_mut(id);
        node.outputs[0].ty.layout = case.result;
        node.outputs[0].location = Some(Location {
            arena: Arena::Outputs,
            offset: i as u64,
        });
        node.schedule = Some(case.schedule);
        b.results.push(node.outputs[0].ty.clone());
        let bytes = b.graph.workspace_bytes(id, bound);
        b.graph.node_mut(id).workspace = Some(Location {
            arena: Arena::Step,
            offset: 0,
        });
        b.step_bytes = b.step_bytes.max(bytes);
        b.graph.outputs.push(Output {
            kind: OutputKind::Output,
            name: format!("{i}"),
            value: Value::from(id),
        });
        b.steps.push(id);
    }
    b
}

fn compile(b: &Build, vector_bytes: usize, dtype: DType) -> Library {
    let cpu = &Cpu::new(CpuFlag::Native);
    let program = Program {
        train: None,
        infer: Some(Part {
            graph: &b.graph,
            prepare: &[],
            step: &b.steps,
            step_bytes: b.step_bytes,
        }),
        dtype,
        vector_bytes,
        products: Products::Exact,
        batch_bound: BOUND,
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
    let source: String = names.iter().map(|name| format!("char {name}[1];\n")).collect();
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

/// Runs all cases on batches of these sizes.
pub fn run(cases: &[Case], vector_bytes: usize, batches: &[usize]) {
    let dtype = cases[0].operands[0].dtype;
    let b = build(cases);
    let library = compile(&b, vector_bytes, dtype);
    for &n in batches {
        compare(cases, &b, &library, n);
    }
}

/// Runs all cases on `n` samples.
fn compare(cases: &[Case], b: &Build, library: &Library, n: usize) {
    let dtype = cases[0].operands[0].dtype;
    let mut state = State::default();
    let mut weights = Memory::new(b.weight_bytes as usize);
    for (i, (name, ty, offset)) in b.parameters.iter().enumerate() {
        let dims = sizes(ty, 0);
        let fan: usize = dims[1..].iter().product();
        let scale = 1.0 / (fan.max(1) as f64).sqrt();
        let values: Vec<f64> = noise(7 + i as u64, dims.iter().product())
            .into_iter()
            .map(|v| rounded(v * scale, dtype))
            .collect();
        write(weights.address().wrapping_add(*offset as usize), ty, 0, &values);
        state.parameters.insert(name.clone(), Array::new(&dims, values));
    }
    let mut given = BTreeMap::new();
    let mut inputs: Vec<Memory> = Vec::new();
    for (i, (name, ty)) in b.inputs.iter().enumerate() {
        let dims = sizes(ty, n);
        let values: Vec<f64> = noise(1000 + i as u64, dims.iter().product())
            .into_iter()
            .map(|v| rounded(v, dtype))
            .collect();
        let mut memory = Memory::new(ty.bytes(BOUND).unwrap() as usize);
        write(memory.address(), ty, n, &values);
        inputs.push(memory);
        given.insert(name.clone(), Array::new(&dims, values));
    }
    let mut outputs: Vec<Memory> = b
        .results
        .iter()
        .map(|ty| Memory::new(ty.bytes(BOUND).unwrap() as usize))
        .collect();
    let input_table: Vec<*const u8> = inputs.iter_mut().map(|m| m.address().cast_const()).collect();
    let output_table: Vec<*mut u8> = outputs.iter_mut().map(|m| m.address()).collect();
    let mut step = Memory::new(b.step_bytes as usize + 64);
    let guard = step.address().wrapping_add(b.step_bytes as usize);
    let arguments = StepArguments {
        context: null_mut(),
        weights: weights.address(),
        gradients: null_mut(),
        statistics: null_mut(),
        prepared: null_mut(),
        step: step.address(),
        inputs: input_table.as_ptr(),
        outputs: output_table.as_ptr(),
        loss: null_mut(),
        n: n as i64,
        total: n as i64,
        ranks: 1,
        trace: 0,
        thread: 0,
        threads: 1,
    };
    // SAFETY: the function has this signature, and its arguments hold what the graph was planned for.
    let status = unsafe {
        let function: Symbol<unsafe extern "C" fn(*const StepArguments) -> i32> =
            library.get(symbols::INFER_STEP.as_bytes()).unwrap();
        function(&arguments)
    };
    assert_eq!(status, 0);
    // SAFETY: `step` has a line behind the workspace.
    let behind = unsafe { std::slice::from_raw_parts(guard, 16) };
    assert!(
        behind.iter().all(|&byte| byte == 0xFF),
        "a kernel wrote behind its workspace"
    );
    let rank = RankInputs { n, values: given };
    let reference = evaluate(&b.graph, &[rank], &state).unwrap();
    let mut wrong = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let wanted = reference[0].get(OutputKind::Output, &i.to_string()).unwrap();
        let found = read(output_table[i], &b.results[i], n);
        let scale = wanted.data.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        let error = found
            .iter()
            .zip(&wanted.data)
            .map(|(f, w)| (f - w).abs())
            .fold(
                0.0,
                |worst: f64, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) },
            );
        if error > case.tolerance * scale {
            let at = found
                .iter()
                .zip(&wanted.data)
                .position(|(f, w)| !((f - w).abs() <= case.tolerance * scale));
            wrong.push(format!(
                "{} on {n} samples: {:.1e} (first at {at:?})",
                case.name,
                error / scale
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases are off:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn rounded(v: f64, dtype: DType) -> f64 {
    if dtype == DType::F32 { v as f32 as f64 } else { v }
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

pub fn time(case: &Case, n: usize) -> (f64, f64) {
    let b = build_for(std::slice::from_ref(case), n);
    let library = compile(&b, 64, DType::F32);
    let mut weights = Memory::new(b.weight_bytes as usize);
    for m in weights.0.iter_mut() {
        *m = [0x3d00_0000_3d00_0000; 8];
    }
    let mut inputs: Vec<Memory> = b
        .inputs
        .iter()
        .map(|(_, ty)| {
            let mut m = Memory::new(ty.bytes(n).unwrap() as usize);
            for v in m.0.iter_mut() {
                *v = [0x3d00_0000_3d00_0000; 8];
            }
            m
        })
        .collect();
    let mut outputs: Vec<Memory> = b
        .results
        .iter()
        .map(|ty| Memory::new(ty.bytes(n).unwrap() as usize))
        .collect();
    let it: Vec<*const u8> = inputs.iter_mut().map(|m| m.address().cast_const()).collect();
    let ot: Vec<*mut u8> = outputs.iter_mut().map(|m| m.address()).collect();
    let mut step = Memory::new(b.step_bytes as usize + 64);
    for m in step.0.iter_mut() {
        *m = [0; 8];
    }
    let arguments = StepArguments {
        context: null_mut(),
        weights: weights.address(),
        gradients: null_mut(),
        statistics: null_mut(),
        prepared: null_mut(),
        step: step.address(),
        inputs: it.as_ptr(),
        outputs: ot.as_ptr(),
        loss: null_mut(),
        n: n as i64,
        total: n as i64,
        ranks: 1,
        trace: 0,
        thread: 0,
        threads: 1,
    };
    let mut times = vec![];
    unsafe {
        let f: Symbol<unsafe extern "C" fn(*const StepArguments) -> i32> =
            library.get(symbols::INFER_STEP.as_bytes()).unwrap();
        let start = std::time::Instant::now();
        while times.len() < 5 || (start.elapsed().as_millis() < 150) {
            let t = std::time::Instant::now();
            f(&arguments);
            times.push(t.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 4], times[0])
}
