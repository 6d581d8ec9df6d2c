//! Resize, and Upsample as it was called before.
//!
//! The file gives a scale or a size for every axis. What is imported are source coordinates as fractions of
//! integers, with the way to round to the nearest element as part of them.

use syncbn_ir::ops::{Coordinates, Resize, ResizeMode};
use syncbn_ir::{Dim, TensorType};

use super::window::spatial;
use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

type Imported = Result<Vec<Binding>, ImportError>;

/// How one axis changes: its sizes, and `across / along` input elements for an output element.
#[derive(Clone, Copy)]
struct Axis {
    input: i64,
    output: i64,
    across: i64,
    along: i64,
}

impl Axis {
    /// By size: the ratio is that of the sizes.
    fn sized(input: i64, output: i64) -> Axis {
        let common = gcd(input, output);
        Axis {
            input,
            output,
            across: input / common,
            along: output / common,
        }
    }

    /// By scale: the ratio is that of the sizes where the scale is their quotient, else the simplest fraction
    /// that the scale may stand for.
    fn scaled(input: i64, scale: f64) -> Option<Axis> {
        let single = scale as f32;
        // As shape inference computes it, in f32.
        let output = (input as f32 * single).floor();
        if !(single > 0.0 && (1.0..=i32::MAX as f32).contains(&output)) {
            return None;
        }
        let sized = Axis::sized(input, output as i64);
        if (sized.along as f64 / sized.across as f64) as f32 == single {
            return Some(sized);
        }
        let exact = |across: i64| {
            let along = (scale * across as f64).round();
            (along >= 1.0 && (along / across as f64) as f32 == single).then_some((across, along as i64))
        };
        // A scale of 24 bits is a fraction with a power of two below it.
        let (across, along) = (1..=1024).chain((11..40).map(|bits| 1 << bits)).find_map(exact)?;
        Some(Axis {
            across,
            along,
            ..sized
        })
    }

    /// The coordinates, and their common factor taken out.
    fn coordinates(self, slope: i128, shift: i128, divisor: i128) -> Option<Coordinates> {
        let common = gcd(gcd(slope, shift), divisor).max(1);
        let small = |n: i128| i64::try_from(n / common).ok();
        Some(Coordinates {
            input: self.input,
            output: self.output,
            slope: small(slope)?,
            shift: small(shift)?,
            divisor: small(divisor)?,
        })
    }
}

fn gcd<T>(a: T, b: T) -> T
where
    T: Copy + PartialEq + From<i8> + std::ops::Rem<Output = T> + std::ops::Neg<Output = T> + PartialOrd,
{
    let (mut a, mut b) = (a, b);
    while b != T::from(0) {
        (a, b) = (b, a % b);
    }
    if a < T::from(0) { -a } else { a }
}

/// `Resize` of spatial axes.
pub(super) fn resize(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let scales = if node.opset < 11 { 1 } else { 2 };
    node.expect_inputs(2, if node.opset < 11 { 2 } else { 4 })?;
    let given = match node.input(scales) {
        Some(_) => cx.constant(node, scales)?.map(|s| (!s.is_empty()).then_some(s)),
        None => Some(None),
    };
    let given = given.ok_or_else(|| ImportError::unsupported("scales that are computed"))?;
    resample(cx, node, given)
}

/// `Upsample`, by an attribute or an operand.
pub(super) fn upsample(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let scales = if node.opset < 9 {
        node.expect_inputs(1, 1)?;
        let list = node.floats("scales")?;
        list.map(|list| list.iter().map(|&s| f64::from(s)).collect())
    } else {
        node.expect_inputs(2, 2)?;
        cx.constant(node, 1)?
    };
    let scales = scales.ok_or_else(|| ImportError::unsupported("scales that are computed"))?;
    resample(cx, node, Some(scales))
}

fn resample(cx: &mut Importer, node: &OnnxNode, scales: Option<Vec<f64>>) -> Imported {
    let x = cx.value(node, 0)?;
    let ty = cx.ty(x);
    let mode = match node.text("mode")?.unwrap_or("nearest") {
        "nearest" => ResizeMode::Nearest,
        "linear" | "bilinear" => ResizeMode::Linear,
        other => return Err(unsupported(node, "mode", other)),
    };
    let mut coordinates = Vec::new();
    for axis in changes(cx, node, &ty, scales)? {
        if node.flag("antialias", false)? && axis.across > axis.along {
            return Err(unsupported(node, "antialias", "1 where sizes shrink"));
        }
        let source = source(node, axis)?;
        let rounded = if mode == ResizeMode::Nearest {
            round(node, axis, source)?
        } else {
            let [slope, shift, divisor] = source;
            axis.coordinates(slope, shift, divisor)
        };
        coordinates
            .push(rounded.ok_or_else(|| ImportError::unsupported("scales that are no simple fractions"))?);
    }
    let unchanged = |c: &Coordinates| c.input == c.output && c.slope == c.divisor && c.shift == 0;
    if coordinates.iter().all(unchanged) {
        return Ok(vec![x.into()]);
    }
    let sizes = |of: fn(&Coordinates) -> i64| -> Vec<usize> {
        coordinates
            .iter()
            .filter_map(|c| usize::try_from(of(c)).ok())
            .collect()
    };
    let resize = Resize {
        mode,
        output: sizes(|c| c.output),
        slope: sizes(|c| c.slope),
        shift: coordinates.iter().map(|c| c.shift).collect(),
        divisor: sizes(|c| c.divisor),
    };
    Ok(vec![cx.add(node, resize, &[x])?.into()])
}

fn unsupported(node: &OnnxNode, attribute: &str, value: &str) -> ImportError {
    ImportError::unsupported(format!(
        "{} (opset {}) with {attribute} {value}",
        node.proto.op_type(),
        node.opset
    ))
}

/// How every spatial axis changes; batch and channels must stay.
fn changes(
    cx: &Importer,
    node: &OnnxNode,
    ty: &TensorType,
    scales: Option<Vec<f64>>,
) -> Result<Vec<Axis>, ImportError> {
    let input = spatial(ty)?;
    let rank = ty.shape.rank();
    let axes = match node.ints("axes")? {
        Some(list) => list
            .iter()
            .map(|&a| axis("axis", a, rank))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let moved = || ImportError::unsupported("a change of batch or channels");
    let mut all: Vec<Axis> = input.iter().map(|&n| Axis::sized(n as i64, n as i64)).collect();
    let lengths = |n: usize| match n == axes.len() {
        true => Ok(()),
        false => Err(ImportError::user(format!(
            "{n} scales or sizes for {} axes",
            axes.len()
        ))),
    };
    if let Some(scales) = scales {
        lengths(scales.len())?;
        for (&at, scale) in axes.iter().zip(scales) {
            match at.checked_sub(2) {
                Some(i) => {
                    let axis = Axis::scaled(all[i].input, scale);
                    all[i] = axis.ok_or_else(|| {
                        ImportError::user(format!("a scale of {scale} for a size of {}", input[i]))
                    })?;
                }
                None if scale == 1.0 => {}
                None => return Err(moved()),
            }
        }
        return Ok(all);
    }
    if let Some(policy) = node.text("keep_aspect_ratio_policy")?.filter(|&p| p != "stretch") {
        return Err(unsupported(node, "keep_aspect_ratio_policy", policy));
    }
    let sizes = cx.integers(node, 3)?;
    lengths(sizes.values.len())?;
    for (&at, size) in axes.iter().zip(&sizes.values) {
        match (at.checked_sub(2), size.dim()) {
            (Some(i), Some(Dim::Fixed(n))) if n > 0 && i32::try_from(n).is_ok() => {
                all[i] = Axis::sized(all[i].input, n as i64);
            }
            (Some(_), _) => return Err(ImportError::unsupported("a size that is not known, or is 0")),
            (None, dim) => {
                let fixed = ty.shape.0[at] == Dim::Batch && dim == cx.fixed_batch.map(Dim::Fixed);
                if dim != Some(ty.shape.0[at]) && !fixed {
                    return Err(moved());
                }
            }
        }
    }
    Ok(all)
}

/// Slope, shift and divisor of the coordinate that an output stands for.
fn source(node: &OnnxNode, axis: Axis) -> Result<[i128; 3], ImportError> {
    let default = if node.opset < 11 {
        "asymmetric"
    } else {
        "half_pixel"
    };
    let given = match node.opset {
        ..11 => default,
        _ => node.text("coordinate_transformation_mode")?.unwrap_or(default),
    };
    let [p, q, input, output] = [axis.across, axis.along, axis.input, axis.output].map(i128::from);
    let first = [0, 0, 1];
    let half_pixel = [2 * p, p - q, 2 * q];
    Ok(match given {
        "asymmetric" => [p, 0, q],
        "half_pixel" => half_pixel,
        "pytorch_half_pixel" | "align_corners" if output == 1 => first,
        "pytorch_half_pixel" => half_pixel,
        // The resized length is `input * q / p`, which need not be a whole number.
        "align_corners" => [(input - 1) * p, 0, input * q - p],
        "half_pixel_symmetric" => [2 * p, p - q + input * q - output * p, 2 * q],
        "tf_half_pixel_for_nn" => [2 * p, p, 2 * q],
        other => return Err(unsupported(node, "coordinate_transformation_mode", other)),
    })
}

/// The coordinates of which the integral part is the nearest element.
fn round(
    node: &OnnxNode,
    axis: Axis,
    [slope, shift, divisor]: [i128; 3],
) -> Result<Option<Coordinates>, ImportError> {
    let default = if node.opset < 11 {
        "floor"
    } else {
        "round_prefer_floor"
    };
    let given = match node.opset {
        ..11 => default,
        _ => node.text("nearest_mode")?.unwrap_or(default),
    };
    Ok(match given {
        "floor" => axis.coordinates(slope, shift, divisor),
        // `ceil(n / d)` is `floor((n + d - 1) / d)`; the others are `ceil(c - 1/2)` and `floor(c + 1/2)`.
        "ceil" => axis.coordinates(slope, shift + divisor - 1, divisor),
        "round_prefer_floor" => axis.coordinates(2 * slope, 2 * shift + divisor - 1, 2 * divisor),
        "round_prefer_ceil" => axis.coordinates(2 * slope, 2 * shift + divisor, 2 * divisor),
        other => return Err(unsupported(node, "nearest_mode", other)),
    })
}
