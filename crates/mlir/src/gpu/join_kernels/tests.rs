//! Tests of joining kernels that differ in constants only.

use melior::Context;
use melior::dialect::DialectRegistry;
use melior::ir::block::BlockLike;
use melior::ir::{Location, Module};
use melior::utility::register_all_dialects;

use super::{Definition, join};
use crate::emit::Blocks;
use crate::handle;
use crate::host::Parameter;

/// What is made of kernels: for each one its symbol, its code, and the launches with their numbers.
type Made = Vec<(String, String, Vec<(usize, Vec<i32>)>)>;

/// Joins kernels of a pointer that have this code and whose pointers are read only, or not.
fn joined(kernels: &[(&str, bool)]) -> Made {
    let registry = DialectRegistry::new();
    register_all_dialects(&registry);
    let context = Context::new();
    context.append_dialect_registry(&registry);
    context.load_all_available_dialects();
    let module = Module::new(Location::unknown(&context));
    handle::build(&context, &module, |context, _| {
        let definitions = kernels.iter().enumerate().map(|(i, (code, readonly))| {
            let text = format!("llvm.func @k(%p: !llvm.ptr<1>) {{\n{code}\nllvm.return\n}}");
            let module = Module::parse(context, &text).expect("the test's kernels are MLIR");
            let function = module.body().first_operation().unwrap();
            let definition = Definition {
                name: format!("k_{i}"),
                op: "k",
                parameters: vec![Parameter::Shared],
                readonly: vec![*readonly],
                blocks: Blocks::of_threads(32),
                location: Location::unknown(context),
                region: handle::take_region((*function).clone()),
            };
            (i, definition)
        });
        let made = join(context, definitions.collect());
        let made = made.into_iter().map(|mut kernel| {
            let numbers = kernel.launches[0].1.len();
            let expected = match numbers {
                0 => vec![Parameter::Shared],
                _ => vec![Parameter::Shared, Parameter::Numbers(numbers)],
            };
            assert_eq!(kernel.definition.parameters, expected);
            let code = super::printed(&mut kernel.definition);
            (kernel.definition.name, code, kernel.launches)
        });
        made.collect()
    })
}

/// Which launches each kernel serves, and their numbers.
fn launches(kernels: &[(&str, bool)]) -> Vec<Vec<(usize, Vec<i32>)>> {
    joined(kernels)
        .into_iter()
        .map(|(_, _, launches)| launches)
        .collect()
}

/// A kernel that stores one number at the place of another one.
fn store(number: i32, place: i32) -> String {
    format!(
        "%n = arith.constant {number} : i32\n%i = arith.constant {place} : i32\n\
         %a = llvm.getelementptr %p[%i] : (!llvm.ptr<1>, i32) -> !llvm.ptr<1>, i32\n\
         llvm.store %n, %a : i32, !llvm.ptr<1>"
    )
}

/// A kernel with a loop from 0 that stores a number at every place.
fn turns(turns: i32, number: i32) -> String {
    format!(
        "%zero = arith.constant 0 : i32\n%end = arith.constant {turns} : i32\n%one = arith.constant 1 : i32\n\
         scf.for %i = %zero to %end step %one : i32 {{\n\
         %n = arith.constant {number} : i32\n\
         %a = llvm.getelementptr %p[%i] : (!llvm.ptr<1>, i32) -> !llvm.ptr<1>, i32\n\
         llvm.store %n, %a : i32, !llvm.ptr<1>\n}}"
    )
}

#[test]
fn constants_that_differ_become_numbers() {
    let [a, b, c] = [store(64, 3), store(-5, 3), store(0, 3)];
    let made = joined(&[(&a, false), (&b, false), (&c, false)]);
    let [(name, code, launches)] = &made[..] else {
        panic!("{made:?}")
    };
    assert_eq!(name, "k_0");
    assert_eq!(*launches, [(0, vec![64]), (1, vec![-5]), (2, vec![0])]);
    // What is the same in all stays in the code.
    assert!(
        code.contains("value = 3 : i32") && !code.contains("value = 64 : i32"),
        "{code}"
    );
    assert_eq!(code.matches("llvm.load").count(), 1, "{code}");
}

#[test]
fn constants_that_agree_in_every_launch_are_one_number() {
    let [a, b] = [store(64, 64), store(32, 32)];
    assert_eq!(
        launches(&[(&a, false), (&b, false)]),
        [[(0, vec![64]), (1, vec![32])]]
    );
    let [a, b] = [store(64, 64), store(32, 16)];
    let both = launches(&[(&a, false), (&b, false)]);
    assert_eq!(both, [[(0, vec![64, 64]), (1, vec![32, 16])]]);
}

#[test]
fn kernels_that_are_the_same_need_no_numbers() {
    let a = store(64, 3);
    assert_eq!(
        launches(&[(&a, false), (&a, false)]),
        [[(0, vec![]), (1, vec![])]]
    );
}

#[test]
fn constants_in_loops_and_ends_of_long_loops_become_numbers() {
    let [a, b] = [turns(100, 7), turns(200, 9)];
    assert_eq!(
        launches(&[(&a, false), (&b, false)]),
        [[(0, vec![100, 7]), (1, vec![200, 9])]]
    );
    let [a, b] = [turns(100, 7), turns(100, 9)];
    assert_eq!(
        launches(&[(&a, false), (&b, false)]),
        [[(0, vec![100, 7]), (1, vec![100, 9])]]
    );
    assert_eq!(launches(&[(&a, false)]), [[(0, vec![100])]]);
    // A short loop is one that LLVM unrolls.
    let [a, b, c] = [turns(3, 7), turns(5, 7), turns(3, 9)];
    let all = launches(&[(&a, false), (&b, false), (&c, false)]);
    assert_eq!(all, [vec![(0, vec![7]), (2, vec![9])], vec![(1, vec![])]]);
}

#[test]
fn what_else_differs_keeps_kernels_apart() {
    let float =
        |value: &str| format!("%f = arith.constant {value} : f32\nllvm.store %f, %p : f32, !llvm.ptr<1>");
    let long =
        |value: i64| format!("%l = arith.constant {value} : i64\nllvm.store %l, %p : i64, !llvm.ptr<1>");
    let [a, b, c, d] = [float("1.0"), float("2.0"), long(1), long(2)];
    let aligned = c.replace("%p :", "%p {alignment = 4 : i64} :");
    let kernels = [&a, &b, &c, &d, &aligned].map(|code| (code.as_str(), false));
    let apart: Vec<_> = (0..kernels.len()).map(|i| vec![(i, Vec::new())]).collect();
    assert_eq!(launches(&kernels), apart);
    let a = store(1, 2);
    assert_eq!(launches(&[(&a, false), (&a, true)]), apart[..2]);
}

#[test]
fn a_kernel_has_no_more_numbers_than_its_parameters_may_take() {
    let many = |first: i32, count: i32| -> String {
        let one = |i: i32| {
            let n = first + i;
            format!("%n{i} = arith.constant {n} : i32\nllvm.store %n{i}, %p : i32, !llvm.ptr<1>\n")
        };
        (0..count).map(one).collect()
    };
    // 4096 bytes, less 8 for the pointer.
    let [a, b] = [many(0, 1022), many(10_000, 1022)];
    assert_eq!(launches(&[(&a, false), (&b, false)]).len(), 1);
    let [a, b] = [many(0, 1023), many(10_000, 1023)];
    assert_eq!(launches(&[(&a, false), (&b, false)]).len(), 2);
}
