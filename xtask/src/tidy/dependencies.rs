//! Dependencies point one way: `driver -> {onnx, passes, codegen}`, `codegen -> mlir -> {ir, abi}`,
//! `{onnx, passes} -> ir`, `runtime -> abi`.

use super::Problem;
use crate::metadata::{Metadata, Package};

/// What one member may reach, by any chain of its dependencies.
struct Rule {
    member: &'static str,
    /// The only members it may reach.
    members: &'static [&'static str],
    /// Registry crates it must not reach.
    never: &'static [&'static str],
    /// Why, as the end of a sentence.
    because: &'static str,
}

/// The crates that bind LLVM and MLIR.
const LLVM: &[&str] = &["melior", "mlir-sys", "inkwell", "llvm-sys"];
/// Those, and what reads ONNX files.
const LLVM_AND_ONNX: &[&str] = &["melior", "mlir-sys", "inkwell", "llvm-sys", "prost", "protox"];

const RULES: [Rule; 8] = [
    Rule {
        member: "syncbn-abi",
        members: &[],
        never: LLVM_AND_ONNX,
        because: "both sides share it",
    },
    Rule {
        member: "syncbn-ir",
        members: &[],
        never: LLVM_AND_ONNX,
        because: "the graph knows nothing of ONNX, MLIR or LLVM",
    },
    Rule {
        member: "syncbn-passes",
        members: &["syncbn-ir"],
        never: LLVM_AND_ONNX,
        because: "passes see the graph alone, so that their tests build in seconds",
    },
    Rule {
        member: "syncbn-onnx",
        members: &["syncbn-ir"],
        never: LLVM,
        because: "import and export know the graph alone",
    },
    Rule {
        member: "syncbn-mlir",
        members: &["syncbn-ir", "syncbn-abi"],
        never: &["inkwell", "prost"],
        because: "lowering takes a graph and gives MLIR",
    },
    Rule {
        member: "syncbn-codegen",
        members: &["syncbn-mlir", "syncbn-ir", "syncbn-abi"],
        never: &["prost"],
        because: "code generation knows nothing of passes or ONNX",
    },
    Rule {
        member: "syncbn-runtime",
        members: &["syncbn-abi"],
        never: LLVM_AND_ONNX,
        because: "the runtime is linked into every executable and holds no part of the compiler",
    },
    Rule {
        member: "syncbn-strict",
        members: &[],
        never: LLVM_AND_ONNX,
        because: "it stands for NVIDIA's libraries, and knows of the project what those do",
    },
];

/// Crates that exactly one member names in its manifest.
const NAMED_ONCE: [(&str, &str); 2] = [("melior", "syncbn-mlir"), ("inkwell", "syncbn-codegen")];

/// What the interface between compiled models and the runtime may depend on, besides build scripts.
const ABI_MAY_NAME: &[&str] = &["serde"];

/// Checks every rule above.
pub fn check(metadata: &Metadata) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in &RULES {
        match metadata.member(rule.member) {
            Some(member) => problems.extend(check_rule(metadata, member, rule)),
            None => problems.push(Problem::error(
                "Cargo.toml",
                0,
                format!("{} is no member", rule.member),
            )),
        }
    }
    for (name, owner) in NAMED_ONCE {
        problems.extend(check_named_once(metadata, name, owner));
    }
    if let Some(abi) = metadata.member("syncbn-abi") {
        let extra = abi.dependencies.iter().filter(|d| d.kind.is_none());
        for dependency in extra.filter(|d| !ABI_MAY_NAME.contains(&d.name.as_str())) {
            let text = format!(
                "syncbn-abi may depend on {} alone, not on {}",
                ABI_MAY_NAME.join(", "),
                dependency.name
            );
            problems.push(Problem::error(&manifest(abi), 0, text));
        }
    }
    problems
}

fn check_rule(metadata: &Metadata, member: &Package, rule: &Rule) -> Vec<Problem> {
    let reached = metadata.reaches(member);
    let wrong = reached.into_iter().filter(|name| {
        rule.never.contains(name) || (metadata.member(name).is_some() && !rule.members.contains(name))
    });
    wrong
        .map(|name| {
            let text = format!("{} must not reach {name}: {}", rule.member, rule.because);
            Problem::error(&manifest(member), 0, text)
        })
        .collect()
}

fn check_named_once(metadata: &Metadata, name: &str, owner: &str) -> Vec<Problem> {
    let naming = |package: &&Package| package.dependencies.iter().any(|d| d.name == name);
    let mut problems: Vec<Problem> = metadata
        .members()
        .filter(|package| package.name != owner)
        .filter(naming)
        .map(|package| Problem::error(&manifest(package), 0, format!("only {owner} may name {name}")))
        .collect();
    if !metadata.member(owner).is_some_and(|package| naming(&package)) {
        problems.push(Problem::error(
            "Cargo.toml",
            0,
            format!("{owner} should name {name}, and does not"),
        ));
    }
    problems
}

/// The manifest's path below the workspace, as far as a member's name tells it.
fn manifest(package: &Package) -> String {
    let parts: Vec<&str> = package.manifest_path.rsplit('/').take(3).collect();
    match parts.as_slice() {
        [file, folder, "crates"] => format!("crates/{folder}/{file}"),
        [file, folder, ..] => format!("{folder}/{file}"),
        _ => package.manifest_path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata of members given as `name: dependency dependency`; `dev:` and `build:` set the kind.
    fn workspace(members: &[&str]) -> Metadata {
        let packages: Vec<serde_json::Value> = members
            .iter()
            .map(|line| {
                let (name, dependencies) = line.split_once(':').unwrap();
                let dependencies: Vec<serde_json::Value> = dependencies
                    .split_whitespace()
                    .map(|word| {
                        let (kind, name) = word.split_once('/').map_or((None, word), |(k, n)| (Some(k), n));
                        serde_json::json!({"name": name, "kind": kind})
                    })
                    .collect();
                serde_json::json!({
                    "name": name, "version": "0.1.0", "id": name, "license": null, "repository": null,
                    "manifest_path": format!("/x/crates/{name}/Cargo.toml"), "source": null,
                    "dependencies": dependencies,
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({"packages": packages, "resolve": null})).unwrap()
    }

    const GOOD: [&str; 8] = [
        "syncbn-abi: serde build/sha2",
        "syncbn-ir: petgraph",
        "syncbn-passes: syncbn-ir dev/libtest-mimic",
        "syncbn-onnx: syncbn-ir prost build/protox",
        "syncbn-mlir: syncbn-ir syncbn-abi melior",
        "syncbn-codegen: syncbn-mlir syncbn-ir syncbn-abi inkwell mlir-sys",
        "syncbn-runtime: syncbn-abi libc",
        "syncbn-strict: libc object",
    ];

    /// The texts of what is wrong when the member of the same name is replaced by `line`.
    fn with(line: &str) -> Vec<String> {
        let name = line.split(':').next().unwrap();
        let members: Vec<&str> = GOOD
            .iter()
            .map(|m| {
                if m.split(':').next() == Some(name) {
                    line
                } else {
                    *m
                }
            })
            .collect();
        check(&workspace(&members))
            .into_iter()
            .map(|problem| problem.text)
            .collect()
    }

    #[test]
    fn the_intended_directions_pass() {
        assert_eq!(check(&workspace(&GOOD)), []);
    }

    #[test]
    fn the_graph_may_not_reach_onnx_or_llvm() {
        assert!(with("syncbn-ir: petgraph prost")[0].contains("syncbn-ir must not reach prost"));
        assert!(
            with("syncbn-ir: syncbn-onnx")
                .iter()
                .any(|t| t.contains("syncbn-ir must not reach syncbn-onnx"))
        );
    }

    #[test]
    fn passes_may_not_see_melior_even_in_tests_or_through_another_member() {
        assert!(
            with("syncbn-passes: syncbn-ir dev/syncbn-mlir")
                .iter()
                .any(|t| t.contains("reach melior"))
        );
        assert!(
            with("syncbn-passes: syncbn-ir melior")
                .iter()
                .any(|t| t == "only syncbn-mlir may name melior")
        );
    }

    #[test]
    fn the_runtime_holds_no_part_of_the_compiler() {
        assert!(
            with("syncbn-runtime: syncbn-abi syncbn-ir")[0]
                .contains("syncbn-runtime must not reach syncbn-ir")
        );
    }

    #[test]
    fn the_stand_in_shares_nothing_with_what_it_tests() {
        assert!(
            with("syncbn-strict: syncbn-runtime")
                .contains(&"syncbn-strict must not reach syncbn-runtime: it stands for NVIDIA's libraries, and knows of the project what those do".into())
        );
    }

    #[test]
    fn one_crate_names_each_binding() {
        assert!(
            with("syncbn-codegen: syncbn-mlir inkwell melior")
                .contains(&"only syncbn-mlir may name melior".into())
        );
        assert!(
            with("syncbn-mlir: syncbn-ir").contains(&"syncbn-mlir should name melior, and does not".into())
        );
    }

    #[test]
    fn the_interface_depends_on_serde_alone() {
        assert_eq!(
            with("syncbn-abi: serde libc"),
            ["syncbn-abi may depend on serde alone, not on libc"]
        );
    }

    #[test]
    fn a_member_that_went_away_is_noticed() {
        let texts: Vec<String> = check(&workspace(&GOOD[1..]))
            .into_iter()
            .map(|p| p.text)
            .collect();
        assert!(texts.contains(&"syncbn-abi is no member".to_owned()));
    }
}
