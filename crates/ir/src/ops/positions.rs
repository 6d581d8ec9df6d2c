//! Index arithmetic of the reference evaluation: strided walks over row-major arrays.

use crate::tensor::Array;

/// Offsets `sum(index[i] * strides[i])` of all indices below `dims`, in row-major order of the indices.
pub(super) fn positions(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut list = vec![0];
    for (&size, &stride) in dims.iter().zip(strides) {
        let mut longer = Vec::with_capacity(list.len() * size);
        for &start in &list {
            longer.extend((0..size).map(|i| start + i * stride));
        }
        list = longer;
    }
    list
}

/// The strides that read `x` as if it were broadcast to `dims` (at least as many axes): 0 along broadcast axes.
pub(super) fn broadcast_strides(x: &Array, dims: &[usize]) -> Vec<usize> {
    let missing = dims.len() - x.dims.len();
    let mut strides = vec![0; missing];
    for (i, stride) in x.strides().into_iter().enumerate() {
        strides.push(if x.dims[i] == dims[missing + i] { stride } else { 0 });
    }
    strides
}

/// `x` broadcast to `dims`.
pub(super) fn broadcast_to(x: &Array, dims: &[usize]) -> Array {
    let data = positions(dims, &broadcast_strides(x, dims))
        .into_iter()
        .map(|p| x.data[p])
        .collect();
    Array::new(dims, data)
}

/// Sizes of an array `[n, c, s...]` seen as `n` samples of `c` channels of `s` values.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    pub n: usize,
    pub c: usize,
    pub s: usize,
}

impl Channels {
    pub fn of(x: &Array) -> Channels {
        Channels {
            n: x.dims[0],
            c: x.dims[1],
            s: x.dims[2..].iter().product(),
        }
    }

    /// Values of one channel.
    pub fn per_channel(self) -> usize {
        self.n * self.s
    }

    /// Offsets of the values of channel `c`.
    pub fn positions(self, c: usize) -> impl Iterator<Item = usize> + Clone {
        (0..self.n).flat_map(move |i| {
            let start = (i * self.c + c) * self.s;
            start..start + self.s
        })
    }
}

/// Mean and sum of squared deviations, in two passes; zeros for no values.
pub(super) fn mean_and_m2(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let m = values.clone().count() as f64;
    if m == 0.0 {
        return (0.0, 0.0);
    }
    let rough = values.clone().sum::<f64>() / m;
    // The second pass also yields what rounding took from the mean.
    let rest = values.clone().map(|x| x - rough).sum::<f64>() / m;
    let mean = rough + rest;
    (mean, values.map(|x| (x - mean) * (x - mean)).sum())
}
