//! Parameters lie in device memory in the order that kernels want, and row-major everywhere else.

use syncbn_abi::{Model, Parameter};

/// Puts the parameters of an arena from row-major order into that of the device.
pub fn to_device(model: &Model, arena: &mut [u8]) {
    permute(model, arena, |from, to| (from, to));
}

/// Puts the parameters of an arena (weights, or gradients at the same offsets) into row-major order.
pub fn from_device(model: &Model, arena: &mut [u8]) {
    permute(model, arena, |from, to| (to, from));
}

/// Moves every element from the first place that `direction` makes of its row-major index and its index with
/// channels last to the second.
fn permute(model: &Model, arena: &mut [u8], direction: impl Fn(usize, usize) -> (usize, usize)) {
    let width = model.element_type.bytes() as usize;
    for parameter in model
        .parameters
        .iter()
        .filter(|parameter| parameter.channels_last)
    {
        let begin = parameter.offset as usize;
        let bytes = parameter.elements() as usize * width;
        // Gradients are kept of trained parameters only, which come first.
        let Some(own) = arena.get_mut(begin..begin + bytes) else {
            continue;
        };
        let before = own.to_vec();
        for (plain, last) in pairs(parameter) {
            let (from, to) = direction(plain, last);
            own[to * width..][..width].copy_from_slice(&before[from * width..][..width]);
        }
    }
}

/// For every element its index in row-major order, and with axis 1 innermost.
fn pairs(parameter: &Parameter) -> impl Iterator<Item = (usize, usize)> {
    let size = |axis: usize| parameter.shape.get(axis).map_or(1, |&n| n as usize);
    let (outer, channels) = (size(0), size(1));
    let inner: usize = parameter.shape.iter().skip(2).map(|&n| n as usize).product();
    (0..outer * channels * inner).map(move |plain| {
        let (position, rest) = (plain % inner, plain / inner);
        let (channel, first) = (rest % channels, rest / channels);
        (plain, (first * inner + position) * channels + channel)
    })
}

#[cfg(test)]
mod tests {
    use syncbn_abi::Initial;

    use super::*;

    #[test]
    fn channels_go_innermost() {
        let parameter = Parameter {
            name: "w".to_string(),
            shape: vec![2, 3, 2, 1],
            offset: 0,
            channels_last: true,
            trained: true,
            initial: Initial::Fill { value: 0.0 },
        };
        let expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let places: Vec<usize> = pairs(&parameter).map(|(_, last)| last).collect();
        // Element (k, c, r) of [2, 3, 2] goes to (k*2 + r)*3 + c.
        assert_eq!(places, expected.map(|n: usize| n));
    }
}
