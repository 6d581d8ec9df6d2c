//! Parameters lie in memory in the order that kernels want, and row-major in files and initial values. In an arena both
//! forms of a parameter begin at its offset; what is padding is zero.

use std::borrow::Cow;

use syncbn_abi::{Model, Order, Parameter};

/// Puts the parameters of an arena from row-major order into that of kernels.
pub fn from_rows(model: &Model, arena: &mut [u8]) {
    permute(model, arena, |row, stored| (row, stored));
}

/// Puts the parameters of an arena (weights, or gradients at the same offsets) into row-major order.
pub fn to_rows(model: &Model, arena: &mut [u8]) {
    permute(model, arena, |row, stored| (stored, row));
}

/// The arena with its parameters in row-major order: a copy only where some have another.
pub fn rows<'a>(model: &Model, arena: &'a [u8]) -> Cow<'a, [u8]> {
    if model
        .parameters
        .iter()
        .all(|parameter| parameter.order == Order::Plain)
    {
        return Cow::Borrowed(arena);
    }
    let mut copy = arena.to_vec();
    to_rows(model, &mut copy);
    Cow::Owned(copy)
}

/// Moves every element from the first place that `direction` makes of its row-major index and its index in memory to
/// the second, and clears all others.
fn permute(model: &Model, arena: &mut [u8], direction: impl Fn(usize, usize) -> (usize, usize)) {
    let width = model.element_type.bytes() as usize;
    let parameters = model.parameters.iter();
    for parameter in parameters.filter(|parameter| parameter.order != Order::Plain) {
        let begin = parameter.offset as usize;
        let bytes = parameter.stored_elements() as usize * width;
        // Gradients are kept of trained parameters only, which come first.
        let Some(own) = arena.get_mut(begin..begin + bytes) else {
            continue;
        };
        let before = own.to_vec();
        own.fill(0);
        for (row, stored) in pairs(parameter) {
            let (from, to) = direction(row, stored);
            own[to * width..][..width].copy_from_slice(&before[from * width..][..width]);
        }
    }
}

/// For every element its index in row-major order, and in memory.
fn pairs(parameter: &Parameter) -> impl Iterator<Item = (usize, usize)> {
    let size = |axis: usize| parameter.shape.get(axis).map_or(1, |&n| n as usize);
    let (outer, channels) = (size(0), size(1));
    let inner: usize = parameter.shape.iter().skip(2).map(|&n| n as usize).product();
    let order = parameter.order;
    (0..outer * channels * inner).map(move |row| {
        let (position, rest) = (row % inner, row / inner);
        let (channel, first) = (rest % channels, rest / channels);
        let stored = match order {
            Order::Plain => row,
            Order::ChannelsLast => (first * inner + position) * channels + channel,
            Order::Filter { block } => {
                let block = (block as usize).max(1);
                let (at, lane) = (first / block, first % block);
                ((at * inner + position) * channels + channel) * block + lane
            }
        };
        (row, stored)
    })
}

#[cfg(test)]
mod tests {
    use syncbn_abi::Initial;

    use super::*;

    fn parameter(shape: &[u64], order: Order) -> Parameter {
        Parameter {
            name: "w".to_string(),
            shape: shape.to_vec(),
            offset: 0,
            order,
            trained: true,
            initial: Initial::Fill { value: 0.0 },
        }
    }

    #[test]
    fn channels_go_innermost() {
        let parameter = parameter(&[2, 3, 2, 1], Order::ChannelsLast);
        let expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let places: Vec<usize> = pairs(&parameter).map(|(_, last)| last).collect();
        // Element (k, c, r) of [2, 3, 2] goes to (k*2 + r)*3 + c.
        assert_eq!(places, expected.map(|n: usize| n));
    }

    #[test]
    fn filters_go_in_blocks() {
        let parameter = parameter(&[3, 2, 2], Order::Filter { block: 2 });
        assert_eq!(parameter.stored_elements(), 16);
        // Element (k, c, r) of [3, 2, 2] goes to (((k/2)*2 + r)*2 + c)*2 + k%2.
        let expected = [0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14];
        let places: Vec<usize> = pairs(&parameter).map(|(_, stored)| stored).collect();
        assert_eq!(places, expected);
    }
}
