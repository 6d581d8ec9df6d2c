//! Whether this machine's processor can run the model's code.

use syncbn_abi::{Cpu, X86_64_V3};

use crate::error::{Error, Result};

/// Pairs LLVM's name of each feature with its detection. Names outside of this list are ignored: generated
/// code uses nothing else that a processor may lack.
macro_rules! features {
    ($name:expr; $($llvm:literal => $rust:tt),* $(,)?) => {
        match $name {
            $($llvm => Some(std::arch::is_x86_feature_detected!($rust)),)*
            _ => None,
        }
    };
}

#[cfg(target_arch = "x86_64")]
fn present(feature: &str) -> Option<bool> {
    features!(feature;
        "sse3" => "sse3", "ssse3" => "ssse3", "sse4.1" => "sse4.1", "sse4.2" => "sse4.2", "sse4a" => "sse4a",
        "avx" => "avx", "avx2" => "avx2", "fma" => "fma", "f16c" => "f16c", "bmi" => "bmi1", "bmi2" => "bmi2",
        "lzcnt" => "lzcnt", "popcnt" => "popcnt", "movbe" => "movbe", "adx" => "adx", "aes" => "aes",
        "pclmul" => "pclmulqdq", "sha" => "sha", "cx16" => "cmpxchg16b", "gfni" => "gfni", "vaes" => "vaes",
        "vpclmulqdq" => "vpclmulqdq", "avxvnni" => "avxvnni", "avxifma" => "avxifma",
        "avx512f" => "avx512f", "avx512bw" => "avx512bw", "avx512cd" => "avx512cd", "avx512dq" => "avx512dq",
        "avx512vl" => "avx512vl", "avx512ifma" => "avx512ifma", "avx512vbmi" => "avx512vbmi",
        "avx512vbmi2" => "avx512vbmi2", "avx512vnni" => "avx512vnni", "avx512bitalg" => "avx512bitalg",
        "avx512vpopcntdq" => "avx512vpopcntdq", "avx512bf16" => "avx512bf16", "avx512fp16" => "avx512fp16",
        "avx512vp2intersect" => "avx512vp2intersect",
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn present(_: &str) -> Option<bool> {
    None
}

/// Refuses a processor that lacks a feature that the chosen part's code may use.
pub fn check(cpu: &Cpu) -> Result<()> {
    check_with(cpu, present)
}

fn check_with(cpu: &Cpu, present: impl Fn(&str) -> Option<bool>) -> Result<()> {
    let missing: Vec<_> = cpu
        .features
        .iter()
        .map(|feature| feature.trim_start_matches('+'))
        .filter(|feature| present(feature) == Some(false))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let help = match missing.iter().any(|feature| X86_64_V3.contains(feature)) {
        true => "compile the model again on this machine, with `syncbn-compile --cpu native`",
        false => "compile the model again on this machine, or with `syncbn-compile --cpu x86-64-v3`",
    };
    Err(Error::environment(format!(
        "this executable is for another processor: it was compiled with --cpu {} ({}), and this machine lacks {}",
        cpu.flag,
        cpu.name,
        missing.join(", ")
    ))
    .help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lacking_feature_is_named_with_the_flag() {
        let cpu = Cpu {
            flag: "x86-64-v4".into(),
            name: "znver5".into(),
            features: ["avx2", "avx512f", "prfchw", "avx512vl"]
                .map(String::from)
                .to_vec(),
        };
        let lacks = |lacking: &'static [&str]| {
            check_with(&cpu, |name| (name != "prfchw").then(|| !lacking.contains(&name)))
        };
        lacks(&[]).unwrap();
        let error = lacks(&["avx512f", "avx512vl"]).unwrap_err();
        assert_eq!(error.kind.exit_code(), 4);
        assert!(error.message.contains("--cpu x86-64-v4"), "{error}");
        assert!(error.message.ends_with("lacks avx512f, avx512vl"), "{error}");
        assert!(error.to_string().contains("--cpu x86-64-v3"), "{error}");
        let error = lacks(&["avx2", "avx512f"]).unwrap_err().to_string();
        assert!(error.contains("--cpu native") && !error.contains("v3"), "{error}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn features_are_detected_by_llvms_names() {
        assert_eq!(present("no-such-feature"), None);
        for feature in X86_64_V3 {
            assert!(present(feature).is_some(), "{feature}");
        }
        assert_eq!(
            present("pclmul"),
            Some(std::arch::is_x86_feature_detected!("pclmulqdq"))
        );
    }
}
