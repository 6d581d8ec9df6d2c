//! Runs this test binary as if it were a produced executable, in a folder of its own.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use syncbn_abi::ElementType;
use syncbn_runtime::files::data::write_npz;

/// Makes the binary act as the model that it describes.
pub const ACT_AS: &str = "SYNCBN_TEST_MODEL";

/// Makes the rank with this number die before it joins the others.
pub const DIES: &str = "SYNCBN_TEST_DIES";

/// Dies if this process is the rank that [`DIES`] names.
pub fn die_if_asked() {
    if let (Ok(dying), Ok(rank)) = (env::var(DIES), env::var("SYNCBN_RANK"))
        && dying == rank
    {
        // SAFETY: ends this process.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}

/// A folder and the model that runs in it.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub model: &'static str,
}

/// What a run printed.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new(model: &'static str) -> Self {
        Bench {
            folder: tempfile::tempdir().unwrap(),
            model,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .current_dir(self.folder.path())
            .env(ACT_AS, self.model)
            .args(arguments.split_whitespace());
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &str) -> Run {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// Runs, and expects success.
    pub fn ok(&self, arguments: &str) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}", run.stderr);
        run
    }

    /// Runs, and expects an error with this exit code that says `parts`; returns what it printed.
    pub fn fails(&self, code: i32, arguments: &str, parts: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments}\n{}", run.stderr);
        for part in parts {
            assert!(
                run.stderr.contains(part),
                "{arguments}: no {part:?} in\n{}",
                run.stderr
            );
        }
        assert!(!run.stderr.contains("panicked at"), "{}", run.stderr);
        run.stderr
    }

    /// Writes a data file of `samples` samples with labels 0 to 3.
    pub fn data(&self, name: &str, samples: usize) {
        let x: Vec<f64> = (0..samples * 3)
            .map(|i| ((i * 37 % 101) as f64 / 10.0).sin() * 2.0 + 0.5)
            .collect();
        let labels: Vec<i64> = (0..samples).map(|i| (i * 7 % 4) as i64).collect();
        self.arrays(name, &[("x", &[samples as u64, 3], &x)], Some(&labels));
    }

    /// Writes f64 arrays, and a target.
    pub fn arrays(&self, name: &str, arrays: &[(&str, &[u64], &[f64])], target: Option<&[i64]>) {
        let mut bytes: Vec<_> = arrays
            .iter()
            .map(|(name, shape, values)| {
                let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (*name, ElementType::F64, shape.to_vec(), data)
            })
            .collect();
        if let Some(labels) = target {
            let data = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
            bytes.push(("target", ElementType::I64, vec![labels.len() as u64], data));
        }
        let views: Vec<_> = bytes
            .iter()
            .map(|(n, t, s, d)| (*n, *t, s.clone(), d.as_slice()))
            .collect();
        write_npz(fs::File::create(self.path(name)).unwrap(), &views).unwrap();
    }

    /// The tensors of a safetensors file.
    pub fn tensors(&self, name: &str) -> BTreeMap<String, Vec<f64>> {
        let bytes = fs::read(self.path(name)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = |view: safetensors::tensor::TensorView| match view.dtype() {
            safetensors::Dtype::F64 => floats(view.data()),
            safetensors::Dtype::F32 => {
                let chunks = view.data().chunks(4);
                chunks
                    .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                    .collect()
            }
            other => panic!("{other:?}"),
        };
        file.tensors()
            .into_iter()
            .map(|(name, view)| (name, values(view)))
            .collect()
    }

    /// One f64 array of an npz file.
    pub fn array(&self, name: &str, array: &str) -> (Vec<u64>, Vec<f64>) {
        let mut archive = syncbn_runtime::files::data::Archive::open(&self.path(name)).unwrap();
        let array = archive.read(array).unwrap();
        (array.header.shape, floats(&array.bytes))
    }

    /// The objects of a log.
    pub fn log(&self, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes
        .chunks(8)
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Asserts that all values agree within `tolerance` of the largest.
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected
        .iter()
        .fold(1e-3_f64, |scale, value| scale.max(value.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * scale,
            "{what}[{i}]: {found} {expected}"
        );
    }
}
