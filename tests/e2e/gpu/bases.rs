//! The emulator is told which parameter of its kernel each access is based on.

use std::collections::BTreeMap;
use std::fs;

use crate::support::net::Attribute::Ints;
use crate::support::net::Net;
use crate::support::run::compile;

/// Calls that are told so: checks of accesses, and copies.
const TOLD: [&str; 3] = [
    "call void @syncbn_emu_access(",
    "@emulate.syncbn_emu_cp_async_ca_shared_global_",
    "@emulate.syncbn_emu_cp_async_cg_shared_global_",
];

/// For each function the bases of its accesses and copies, as the LLVM IR of emulated kernels writes them.
fn bases(precision: &str) -> BTreeMap<String, Vec<String>> {
    let mut net = Net::new(&[8, 12, 12]);
    let same = [("pads", Ints(&[1, 1, 1, 1]))];
    let x = net.conv("x", &[16, 8, 3, 3], &same);
    let x = net.bn(&x, 16);
    let x = net.silu(&x);
    let pool = [("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))];
    let x = net.node("MaxPool", &[&x], &pool);
    let x = net.conv(&x, &[32, 16, 3, 3], &same);
    let x = net.bn(&x, 32);
    let x = net.silu(&x);
    let y = net.head(&x, 32, 8);
    let folder = tempfile::tempdir().unwrap();
    let [model, text] = ["model.onnx", "kernels.ll"].map(|name| folder.path().join(name));
    fs::write(&model, net.finish(&[&y])).unwrap();
    let flags = [
        "--target",
        "cuda-emulated",
        "--precision",
        precision,
        "--emit",
        "llvm",
    ];
    let paths = [model.to_str().unwrap(), "-o", text.to_str().unwrap()];
    compile(folder.path(), &[&paths[..], &flags].concat()).ok();

    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut function = String::new();
    for line in fs::read_to_string(&text).unwrap().lines() {
        if line.starts_with("define ") {
            let name = line.split('@').nth(1).unwrap();
            function = name.split('(').next().unwrap().to_string();
        } else if line.contains(" call ") && TOLD.iter().any(|call| line.contains(call)) {
            let base = line.rsplit_once(')').unwrap().0.rsplit_once(", ").unwrap().1;
            all.entry(function.clone()).or_default().push(base.to_string());
        }
    }
    all
}

#[test]
fn only_updates_access_global_memory_without_a_known_base() {
    for precision in ["cuda=f32", "cuda=bf16"] {
        let all = bases(precision);
        for kind in ["conv", "norm", "pool", "update_sgd"] {
            let found = all.keys().any(|name| name.contains(kind));
            assert!(
                found,
                "{precision}: no kernel of the kind \"{kind}\": {:?}",
                all.keys()
            );
        }
        let to_shared = all.values().flatten().filter(|base| *base == "i64 -2").count();
        assert!(to_shared > 0, "{precision}: no kernel has shared memory");
        for (function, bases) in &all {
            let numbers: Vec<i64> = bases
                .iter()
                .map(|base| base.strip_prefix("i64 ").and_then(|number| number.parse().ok()))
                .collect::<Option<_>>()
                .unwrap_or_else(|| panic!("{precision}: {function} chooses a base at run time: {bases:?}"));
            let unknown = numbers.iter().filter(|&&base| base == -1).count();
            // Updates load the pointers to weights, gradients and moments.
            assert_eq!(
                unknown > 0,
                function.starts_with("update_"),
                "{precision}: {function}: {numbers:?}"
            );
        }
    }
}
