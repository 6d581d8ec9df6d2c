//! What scripts/gpu-pack packs, and how large it may be.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{NETWORK, ended, has_numpy, pack_command, packed, with_numpy};

/// A repository with the scripts, what they pack, and a file of `bytes` that takes no room on the disk.
fn repository(root: &Path, bytes: u64) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut copies = vec![
        "tests/fixtures/rounding/deviation.csv".to_string(),
        format!("tests/fixtures/dev/{NETWORK}.onnx"),
        format!("tests/fixtures/dev/{NETWORK}.npz"),
    ];
    for entry in fs::read_dir(source.join("scripts")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("gpu") {
            copies.push(format!("scripts/{name}"));
        }
    }
    for copy in copies {
        fs::create_dir_all(root.join(&copy).parent().unwrap()).unwrap();
        fs::copy(source.join(&copy), root.join(&copy)).unwrap();
    }
    sparse(&root.join("large"), bytes);
    let git = |words: &[&str]| {
        ended(
            &Command::new("git")
                .args(words)
                .current_dir(root)
                .output()
                .unwrap(),
            0,
        )
    };
    git(&["init", "-q"]);
    git(&["add", "scripts"]);
    // Only the index is looked at: the large file need not be hashed.
    git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("100644,{},large", "1".repeat(40)),
    ]);
}

fn sparse(path: &Path, bytes: u64) {
    fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_pack_that_is_too_large_with_the_repository_or_with_shared_is_refused_by_name() {
    if !has_numpy() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (root, archive) = (folder.path().join("checkout"), folder.path().join("pack.tar.gz"));
    repository(&root, 40 << 20);
    let pack = || {
        let script = root.join("scripts/gpu-pack");
        let output = pack_command(&script, &archive, "cuda", "tf32", "mlp")
            .output()
            .unwrap();
        ended(&output, if archive.exists() { 0 } else { 1 })
    };
    let text = pack();
    assert!(
        text.contains("pack and repository are 4") && text.contains("must stay under 40 MiB"),
        "{text}"
    );
    assert!(!text.contains("shared/ are"), "{text}");
    sparse(&root.join("large"), 64 << 20);
    fs::write(folder.path().join("libnccl.so.2"), [7; 1000]).unwrap();
    let output = with_numpy(root.join("scripts/gpu-pack"))
        .arg(&archive)
        .arg("--nccl")
        .arg(folder.path().join("libnccl.so.2"))
        .output();
    let text = ended(&output.unwrap(), 1);
    assert!(
        text.contains("pack and repository are 64.") && text.contains("must stay under 64 MiB"),
        "{text}"
    );
    sparse(&root.join("large"), 30 << 20);
    fs::create_dir(folder.path().join("shared")).unwrap();
    sparse(&folder.path().join("shared/large"), 30 << 20);
    let text = pack();
    assert!(
        text.contains("pack, repository and shared/ are 6") && text.contains("must stay under 60 MiB"),
        "{text}"
    );
    sparse(&folder.path().join("shared/large"), 10 << 20);
    let text = pack();
    assert!(text.contains("repository 30.1 MiB, shared/ 10.0 MiB"), "{text}");
    assert!(archive.metadata().unwrap().len() < 3 << 20);
}

#[test]
fn a_pack_has_executables_for_other_processors_and_only_the_arrays_that_are_compared() {
    if !has_numpy() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pack = packed(folder.path(), "cuda", "bf16", "mlp");
    for name in ["dev/mlp_bn1d.bf16", "time/mlp.b32.bf16"] {
        let output = Command::new(pack.join(name))
            .args(["info", "--json"])
            .output()
            .unwrap();
        let info: serde_json::Value = serde_json::from_str(&ended(&output, 0)).unwrap();
        // The GPU's part has plain code for the host, whatever the processor's part would have.
        assert_eq!(info["cpu"]["flag"], "x86-64-v3", "{name}: {}", info["cpu"]);
        assert_eq!(info["cpu"]["features"], serde_json::json!([]), "{name}");
    }
    let list = "import sys, numpy\n\
                a = numpy.load(sys.argv[1]); print(*sorted({n.split('/')[0] + ' ' + str(a[n].dtype) for n in a.files}), sep=',')";
    let references = pack.join("dev").join(format!("{NETWORK}.npz"));
    let output = with_numpy("python3")
        .args(["-c", list])
        .arg(references)
        .output()
        .unwrap();
    assert_eq!(
        ended(&output, 0).trim(),
        "eval_after float32,eval_before float32,grad float32,loss float32,param1 float32,param3 float32,\
         stats1 float32,stats3 float32,target int64,train_logits float32,x float32"
    );
}

#[test]
fn nccl_is_packed_alone_and_goes_with_no_networks() {
    if !has_numpy() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (nccl, archive) = (
        folder.path().join("libnccl.so.2"),
        folder.path().join("nccl.tar.xz"),
    );
    fs::write(&nccl, [7; 1000]).unwrap();
    let mut command = with_numpy(super::script("gpu-pack"));
    command.arg(&archive).arg("--nccl").arg(&nccl);
    ended(&command.output().unwrap(), 0);
    let list = Command::new("python3")
        .args([
            "-c",
            "import sys, tarfile; print(*tarfile.open(sys.argv[1]).getnames())",
        ])
        .arg(&archive)
        .output();
    assert_eq!(ended(&list.unwrap(), 0).trim(), "gpu-nccl/libnccl.so.2");
    let text = ended(&command.arg("mlp=mlp.onnx=20").output().unwrap(), 2);
    assert!(text.contains("--nccl packs NCCL alone"), "{text}");
}
