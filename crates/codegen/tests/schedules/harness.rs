//! Runs nodes with schedules on random data, and compares with the reference evaluation.

use std::collections::BTreeMap;

use libloading::Library;
use syncbn_codegen::{Cpu, CpuFlag};
use syncbn_ir::interpreter::{RankInputs, State, evaluate};
use syncbn_ir::{Array, DType, Layout, Op, OutputKind, TensorType};

use crate::module::{self, Build, Case, Memory, arguments, build, compile, guarded};

/// The batch bound of all cases.
pub const BOUND: usize = 5;

/// Memory of what is no number.
fn unset(bytes: usize) -> Memory {
    Memory::of(bytes, u64::MAX)
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

/// Bytes of the vectors that this machine has.
pub fn widths() -> Vec<usize> {
    let most = Cpu::new(CpuFlag::Native).vector_bytes();
    [16, 32, 64].into_iter().filter(|&bytes| bytes <= most).collect()
}

/// Runs what `cases` makes of each element type and number of lanes.
pub fn run_in_all_widths(cases: fn(DType, usize) -> Vec<Case>) {
    for vector_bytes in widths() {
        for dtype in [DType::F32, DType::F64] {
            let lanes = vector_bytes / dtype.bytes() as usize;
            run(&cases(dtype, lanes), vector_bytes, &[3, 5, 1, 0]);
        }
    }
}

/// Runs all cases on batches of these sizes.
pub fn run(cases: &[Case], vector_bytes: usize, batches: &[usize]) {
    let dtype = cases[0].operands[0].dtype;
    let b = build(cases, BOUND);
    let library = compile(&b, vector_bytes, dtype);
    for &n in batches {
        compare(cases, &b, &library, n);
    }
}

/// Runs all cases on `n` samples.
fn compare(cases: &[Case], b: &Build, library: &Library, n: usize) {
    let dtype = cases[0].operands[0].dtype;
    let mut state = State::default();
    let mut weights = unset(b.weight_bytes as usize);
    for (i, weight) in b.parameters.iter().enumerate() {
        let dims = sizes(&weight.ty, 0);
        let fan: usize = dims[1..].iter().product();
        let scale = 1.0 / (fan.max(1) as f64).sqrt();
        let values: Vec<f64> = noise(7 + i as u64, dims.iter().product())
            .into_iter()
            .map(|v| rounded(v * scale + weight.mean, dtype))
            .collect();
        let to = weights.address().wrapping_add(weight.offset as usize);
        write(to, &weight.ty, 0, &values);
        state
            .parameters
            .insert(weight.name.clone(), Array::new(&dims, values));
    }
    let mut given = BTreeMap::new();
    let mut inputs: Vec<Memory> = Vec::new();
    for (i, (name, ty)) in b.inputs.iter().enumerate() {
        let dims = sizes(ty, n);
        let values: Vec<f64> = noise(1000 + i as u64, dims.iter().product())
            .into_iter()
            .map(|v| rounded(v, dtype))
            .collect();
        let mut memory = unset(ty.bytes(BOUND).unwrap() as usize);
        write(memory.address(), ty, n, &values);
        inputs.push(memory);
        given.insert(name.clone(), Array::new(&dims, values));
    }
    let fresh = || -> Vec<Memory> {
        let guarded = |ty: &TensorType| unset(guarded(ty.bytes(BOUND).unwrap()) as usize);
        b.results.iter().map(|(_, ty)| guarded(ty)).collect()
    };
    let mut outputs = fresh();
    let input_table: Vec<*const u8> = inputs.iter_mut().map(|m| m.address().cast_const()).collect();
    let output_table: Vec<*mut u8> = outputs.iter_mut().map(|m| m.address()).collect();
    let mut step = unset(b.step_bytes as usize);
    let sums = b.partial_bytes();
    let mut partials = unset(guarded(sums) as usize);
    let memory = [&mut weights, &mut step, &mut partials];
    let own = arguments(memory, &input_table, &output_table, n);
    module::step(library, &own, 1, 0);
    let mut wrong = Vec::new();
    for threads in [2, 5] {
        let mut others = fresh();
        let table: Vec<*mut u8> = others.iter_mut().map(|m| m.address()).collect();
        let mut step = unset(b.step_bytes as usize);
        let mut partials = unset(guarded(sums) as usize);
        let memory = [&mut weights, &mut step, &mut partials];
        let arguments = arguments(memory, &input_table, &table, n);
        let workspaces = b.steps.iter().map(|&id| b.graph.workspace_bytes(id, BOUND));
        module::step(library, &arguments, threads, workspaces.max().unwrap());
        for (i, &(case, _)) in b.results.iter().enumerate() {
            if !outputs[i].words().eq(others[i].words()) {
                wrong.push(format!(
                    "{} on {n} samples differs on {threads} threads",
                    cases[case].name
                ));
            }
        }
    }
    let mut check = |name: &str, what: &str, start: *mut u8, used: u64, most: u64| {
        if let Some(at) = touched(start, used as usize, guarded(most) as usize) {
            wrong.push(format!(
                "{name} on {n} samples: byte {at} behind its {what} is written"
            ));
        }
    };
    for (case, &id) in cases.iter().zip(&b.steps) {
        let workspace = b.graph.workspace_bytes(id, BOUND);
        let offset = b.graph.node(id).workspace.unwrap().offset as usize;
        let start = step.address().wrapping_add(offset);
        check(&case.name, "workspace", start, workspace, workspace);
    }
    for &id in &b.copies {
        let output = &b.graph.node(id).outputs[0];
        let start = step
            .address()
            .wrapping_add(output.location.unwrap().offset as usize);
        let bytes = output.ty.bytes(n).unwrap();
        check("one of the cases", "transformed weights", start, bytes, bytes);
    }
    for ((case, ty), &start) in b.results.iter().zip(&output_table) {
        let [written, most] = [n, BOUND].map(|n| ty.bytes(n).unwrap());
        check(&cases[*case].name, "result", start, written, most);
    }
    check("one of the cases", "sums", partials.address(), sums, sums);
    let rank = RankInputs { n, values: given };
    let reference = evaluate(&b.graph, &[rank], &state).unwrap();
    let found: Vec<Vec<f64>> = b
        .results
        .iter()
        .zip(&output_table)
        .map(|((_, ty), &from)| read(from, ty, n))
        .collect();
    for (i, (case, ty)) in b.results.iter().enumerate() {
        let case = &cases[*case];
        if matches!(&case.op, Op::Conv(conv) if conv.moments) && ty.shape.rank() == 1 {
            let of = (&b.results[i - 1].1, found[i - 1].as_slice());
            if let Some(channel) = wrong_moments(of, n, &found[i]) {
                wrong.push(format!(
                    "{} on {n} samples: moments of channel {channel}",
                    case.name
                ));
            }
        }
        let wanted = reference[0].get(OutputKind::Output, &i.to_string()).unwrap();
        let found = &found[i];
        let scale = wanted.data.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        let errors: Vec<f64> = found
            .iter()
            .zip(&wanted.data)
            .map(|(f, w)| (f - w).abs())
            .map(|error| if error.is_nan() { f64::INFINITY } else { error })
            .collect();
        let error = errors.iter().fold(0.0, |worst: f64, &error| worst.max(error));
        if error > case.tolerance * scale {
            let at = errors.iter().position(|&error| error > case.tolerance * scale);
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

/// The first channel whose moments are not those of the values of a result, which are all that rounding may touch.
fn wrong_moments((ty, values): (&TensorType, &[f64]), n: usize, moments: &[f64]) -> Option<usize> {
    let relative = if ty.dtype == DType::F32 { 1e-5 } else { 1e-10 };
    let dims = sizes(ty, n);
    let (channels, positions) = (dims[1], dims[2..].iter().product::<usize>());
    let m = (n * positions) as f64;
    (0..channels).find(|&c| {
        let (first, second) = (moments[1 + c], moments[1 + channels + c]);
        if n == 0 {
            return [moments[0], first, second] != [0.0; 3];
        }
        let samples = values.chunks(channels * positions);
        let own: Vec<f64> = samples
            .flat_map(|sample| sample[c * positions..][..positions].to_vec())
            .collect();
        // About the first value, since the sum of values far from zero would round more than what is checked.
        let mean = own[0] + own.iter().map(|v| v - own[0]).sum::<f64>() / m;
        let squares: f64 = own.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = (squares / m).sqrt();
        // What remains of moments about zero, which are in f64.
        let rounding = 1e-14 * mean.abs().max(1.0);
        let is_mean = (first / m - mean).abs() <= relative * deviation + rounding;
        let left = second - first * (first / m);
        let is_square = (left - squares).abs() <= relative * squares + m * rounding * mean.abs().max(1.0);
        moments[0] != m || !is_mean || !is_square
    })
}

/// The first byte from `used` up to `all` that is not as [`unset`] leaves it, counted from `used`.
fn touched(start: *mut u8, used: usize, all: usize) -> Option<usize> {
    // SAFETY: the caller's memory has `all` bytes at `start`.
    let behind = unsafe { std::slice::from_raw_parts(start.wrapping_add(used), all - used) };
    behind.iter().position(|&byte| byte != 0xFF)
}

fn rounded(v: f64, dtype: DType) -> f64 {
    if dtype == DType::F32 { v as f32 as f64 } else { v }
}
