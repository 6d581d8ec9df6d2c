//! Budgets of machine code: what ptxas makes of each kind of kernel, read off its disassembly and compared with
//! `tests/fixtures/sass`. Needs ptxas and nvdisasm (`make ptxas`) of the versions that the golden files name; that one is
//! missing is said.

mod cubin;
mod figures;
mod flow;
mod golden;
mod listing;
mod network;

use std::collections::BTreeMap;

use figures::Figures;
use golden::Golden;

/// Local memory is where registers spill to, and what a loop calls is a division that it need not make: those of
/// SiLU, which stand in loops that store results, are only counted.
fn never(kind: &str, figures: &Figures) -> Option<String> {
    let is = |name: &str| figures.get(name).is_some_and(|value| value > 0.0);
    match () {
        () if is("local") => Some(format!("{kind} uses local memory")),
        () if is("calls") && is("products") => Some(format!("{kind} calls a function in its main loop")),
        () => None,
    }
}

fn check(precision: &str) {
    let Some(device) = cubin::Device::of(&network::built(), precision) else {
        return;
    };
    let mut found: BTreeMap<String, Figures> = BTreeMap::new();
    for capability in [80, 90] {
        for kernel in listing::kernels(&device.listing(capability)) {
            let figures = Figures::of(&kernel, device.registers(capability, &kernel.name));
            let kind = format!("sm_{capability} {}", device.kind(&kernel.name));
            let all = found.entry(kind).or_insert(figures);
            *all = all.worse(figures);
        }
    }
    let broken: Vec<String> = found
        .iter()
        .filter_map(|(kind, figures)| never(kind, figures))
        .collect();
    assert!(broken.is_empty(), "in {precision}: {broken:#?}");
    Golden::new(precision, &device.tools).compare(&found);
}

#[test]
fn kernels_in_tf32_keep_to_their_budgets() {
    check("tf32");
}

#[test]
fn kernels_in_bf16_keep_to_their_budgets() {
    check("bf16");
}

#[test]
fn kernels_in_f32_keep_to_their_budgets() {
    check("f32");
}
