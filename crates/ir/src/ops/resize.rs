//! Resampling of spatial axes, forward and backward.

use super::window::{image, spatial};
use super::{Operator, StepInfo, channels, expect_operands};
use crate::attributes::Word;
use crate::tensor::Array;
use crate::types::TensorType;

/// What is read at a source coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResizeMode {
    /// The element at the coordinate rounded down.
    Nearest,
    /// The two neighbours on every axis, weighted by how near they are.
    Linear,
}

impl Word for ResizeMode {
    fn to_word(&self) -> (String, Vec<f64>) {
        let word = match self {
            ResizeMode::Nearest => "nearest",
            ResizeMode::Linear => "linear",
        };
        (word.to_string(), Vec::new())
    }
    fn from_word(word: &str, args: &[f64]) -> Option<ResizeMode> {
        let all = [ResizeMode::Nearest, ResizeMode::Linear];
        all.into_iter().find(|m| m.to_word().0 == word && args.is_empty())
    }
}

operator! {
    /// Resampling (ONNX `Resize`). Along spatial axis `i`, output `o` reads at the source coordinate
    /// `(slope[i] * o + shift[i]) / divisor[i]`, held inside `0..=size of the input - 1`. Coordinates are
    /// fractions of integers, so that no rounding decides what is read; other ways to round to the nearest
    /// element are other shifts.
    ///
    /// Operands: `x [n, C, spatial...]`. Results: `y [n, C, output...]`.
    Resize = "resize" {
        /// What is read.
        mode: ResizeMode,
        /// Spatial sizes of the result.
        output: Vec<usize>,
        /// Numerator of the step from one coordinate to the next.
        slope: Vec<usize>,
        /// Numerator of the first coordinate.
        shift: Vec<i64>,
        /// Denominator; not 0.
        divisor: Vec<usize>,
    }
}

operator! {
    /// Gradient of [`Resize`].
    ///
    /// Operands: `dy [n, C, output...]`. Results: `dx [n, C, input...]`.
    ResizeBackward = "resize_backward" {
        /// As the resize's.
        mode: ResizeMode,
        /// Spatial sizes of the resize's input.
        input: Vec<usize>,
        /// As the resize's.
        slope: Vec<usize>,
        /// As the resize's.
        shift: Vec<i64>,
        /// As the resize's.
        divisor: Vec<usize>,
    }
}

/// The source coordinates along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordinates {
    /// Size of the input.
    pub input: i64,
    /// Size of the output.
    pub output: i64,
    /// Numerator of the step from one coordinate to the next.
    pub slope: i64,
    /// Numerator of the first coordinate.
    pub shift: i64,
    /// Denominator.
    pub divisor: i64,
}

impl Coordinates {
    fn axes(
        input: &[usize],
        output: &[usize],
        slope: &[usize],
        shift: &[i64],
        divisor: &[usize],
    ) -> Vec<Coordinates> {
        (0..input.len())
            .map(|i| Coordinates {
                input: input[i] as i64,
                output: output[i] as i64,
                slope: slope[i] as i64,
                shift: shift[i],
                divisor: divisor[i] as i64,
            })
            .collect()
    }

    /// Whether all coordinates can be computed in i64, with room.
    fn fits(self) -> bool {
        let small = |v: i64| (0..=i64::from(i32::MAX)).contains(&v);
        let reach = |size: i64, step: i64| size.checked_mul(step).is_some_and(|n| n <= 1 << 60);
        small(self.input)
            && small(self.output)
            && self.input > 0
            && self.output > 0
            && self.divisor > 0
            && self.slope >= 0
            && self.shift.checked_abs().is_some_and(|n| n <= 1 << 60)
            && reach(self.output, self.slope)
            && reach(self.input, self.divisor)
    }

    /// The numerator of the coordinate of output `o`, held inside the input.
    pub fn numerator(self, o: i64) -> i64 {
        (self.slope * o + self.shift).clamp(0, (self.input - 1) * self.divisor)
    }

    /// What output `o` reads: input indices and their weights.
    pub fn reads(self, mode: ResizeMode, o: i64) -> Vec<(usize, f64)> {
        let numerator = self.numerator(o);
        let (low, rest) = (numerator / self.divisor, numerator % self.divisor);
        let share = rest as f64 / self.divisor as f64;
        match mode {
            ResizeMode::Nearest => vec![(low as usize, 1.0)],
            ResizeMode::Linear if rest == 0 => vec![(low as usize, 1.0)],
            ResizeMode::Linear => vec![(low as usize, 1.0 - share), (low as usize + 1, share)],
        }
    }
}

impl Resize {
    /// The coordinates along every spatial axis, for an input of these spatial sizes.
    pub fn coordinates(&self, input: &[usize]) -> Vec<Coordinates> {
        Coordinates::axes(input, &self.output, &self.slope, &self.shift, &self.divisor)
    }
}

impl ResizeBackward {
    /// The coordinates along every spatial axis, for an output of these spatial sizes.
    pub fn coordinates(&self, output: &[usize]) -> Vec<Coordinates> {
        Coordinates::axes(&self.input, output, &self.slope, &self.shift, &self.divisor)
    }
}

/// Checks that the attributes fit an input of `axes` spatial axes.
fn check_lengths(
    axes: usize,
    sizes: usize,
    slope: usize,
    shift: usize,
    divisor: usize,
) -> Result<(), String> {
    if [sizes, slope, shift, divisor].iter().all(|&n| n == axes) {
        return Ok(());
    }
    Err(format!("attributes do not fit {axes} spatial axes"))
}

fn check_coordinates(coordinates: &[Coordinates]) -> Result<(), String> {
    match coordinates.iter().position(|c| !c.fits()) {
        Some(i) => Err(format!(
            "sizes and coordinates of spatial axis {i} are zero or too large"
        )),
        None => Ok(()),
    }
}

impl Operator for Resize {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        if !x.dtype.is_float() {
            return Err(format!("input {x} must be floating point"));
        }
        let input = spatial("the input", x)?;
        let lengths = [
            self.output.len(),
            self.slope.len(),
            self.shift.len(),
            self.divisor.len(),
        ];
        check_lengths(input.len(), lengths[0], lengths[1], lengths[2], lengths[3])?;
        check_coordinates(&self.coordinates(&input))?;
        Ok(vec![image(x, channels("the input", x)?, &self.output)])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let mut y = Array::zeros(&[&x.dims[..2], self.output.as_slice()].concat());
        for_each_read(
            &self.coordinates(&x.dims[2..]),
            self.mode,
            x.dims[0] * x.dims[1],
            |i, o, weight| {
                y.data[o] += weight * x.data[i];
            },
        );
        Ok(vec![y])
    }
}

impl Operator for ResizeBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let dy = operands[0];
        if !dy.dtype.is_float() {
            return Err(format!("the output gradient {dy} must be floating point"));
        }
        let output = spatial("the output gradient", dy)?;
        let lengths = [
            self.input.len(),
            self.slope.len(),
            self.shift.len(),
            self.divisor.len(),
        ];
        check_lengths(output.len(), lengths[0], lengths[1], lengths[2], lengths[3])?;
        check_coordinates(&self.coordinates(&output))?;
        let dx = image(dy, channels("the output gradient", dy)?, &self.input);
        Ok(vec![dx])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let dy = operands[0];
        let mut dx = Array::zeros(&[&dy.dims[..2], self.input.as_slice()].concat());
        let coordinates = self.coordinates(&dy.dims[2..]);
        for_each_read(
            &coordinates,
            self.mode,
            dy.dims[0] * dy.dims[1],
            |i, o, weight| {
                dx.data[i] += weight * dy.data[o];
            },
        );
        Ok(vec![dx])
    }
}

/// Calls `visit` with (input offset, output offset, weight) for all that is read in `planes` planes.
fn for_each_read(
    axes: &[Coordinates],
    mode: ResizeMode,
    planes: usize,
    mut visit: impl FnMut(usize, usize, f64),
) {
    let mut reads = vec![(0, 0, 1.0)];
    for axis in axes {
        let of_axis = (0..axis.output).flat_map(|o| {
            let read = axis.reads(mode, o).into_iter();
            read.map(move |(i, weight)| (i, o as usize, weight))
        });
        let of_axis: Vec<(usize, usize, f64)> = of_axis.collect();
        let (inputs, outputs) = (axis.input as usize, axis.output as usize);
        reads = reads
            .iter()
            .flat_map(|&(i, o, weight)| {
                let of_axis = of_axis.iter();
                of_axis.map(move |&(j, p, w)| (i * inputs + j, o * outputs + p, weight * w))
            })
            .collect();
    }
    let size = |of: fn(&Coordinates) -> i64| axes.iter().map(|a| of(a) as usize).product::<usize>();
    let (inputs, outputs) = (size(|a| a.input), size(|a| a.output));
    for plane in 0..planes {
        for &(i, o, weight) in &reads {
            visit(plane * inputs + i, plane * outputs + o, weight);
        }
    }
}
