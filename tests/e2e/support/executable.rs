//! Compiled networks: each is compiled once for a set of flags, whatever the number of tests that use it.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use syncbn_ir::Array;
use tempfile::TempDir;

use super::files::{Arrays, read_npz, read_safetensors};
use super::run::{Outcome, compile, run};

/// A compiled network.
#[derive(Debug)]
pub struct Executable {
    path: PathBuf,
}

type Cache = Mutex<BTreeMap<String, Arc<OnceLock<Executable>>>>;

static CACHE: Cache = Cache::new(BTreeMap::new());

/// The executable of a network under the given flags. `name` names the network among all tests.
pub fn compiled(name: &str, onnx: &Path, flags: &[&str]) -> Executable {
    // `compile` adds `--target cpu` where no target is named, so that both spellings are one executable.
    let key = format!("{name} {} ", flags.join(" ")).replace(" --target cpu ", " ");
    let cell = Arc::clone(CACHE.lock().unwrap().entry(key.clone()).or_default());
    let executable = cell.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
        fs::create_dir_all(&folder).unwrap();
        // All flags would be too long for a file name.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let path = folder.join(format!("{name}-{:016x}.bin", hasher.finish()));
        let mut arguments = vec![onnx.to_str().unwrap(), "-o", path.to_str().unwrap()];
        arguments.extend(flags);
        compile(&folder, &arguments).ok();
        Executable { path }
    });
    Executable {
        path: executable.path.clone(),
    }
}

/// What a training run left.
pub struct Trained {
    /// Parameters and running statistics.
    pub weights: Arrays,
    /// Gradients of the last step.
    pub gradients: Arrays,
    /// Outputs of the last step.
    pub outputs: Arrays,
    /// Every rank's statistics.
    pub statistics: Arrays,
    /// Loss of each step.
    pub loss: Array,
    /// Bytes of the weights file.
    pub weight_bytes: Vec<u8>,
    /// Where the weights file lies.
    pub weight_file: PathBuf,
    _folder: TempDir,
}

impl Executable {
    /// The executable at a path.
    pub fn at(path: PathBuf) -> Executable {
        Executable { path }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it.
    pub fn run(&self, folder: &Path, arguments: &[&str]) -> Outcome {
        run(&self.path, folder, arguments)
    }

    /// Trains in the order of the data, with every dump.
    #[track_caller]
    pub fn train(&self, data: &Path, flags: &[&str]) -> Trained {
        let (outcome, folder) = self.training(data, flags);
        outcome.ok();
        Trained::read(folder)
    }

    /// As [`Executable::train`]; None if the run fails.
    pub fn try_train(&self, data: &Path, flags: &[&str]) -> Option<Trained> {
        let (outcome, folder) = self.training(data, flags);
        (outcome.code == Some(0)).then(|| Trained::read(folder))
    }

    /// What a run that may fail says.
    pub fn attempt(&self, data: &Path, flags: &[&str]) -> Outcome {
        self.training(data, flags).0
    }

    fn training(&self, data: &Path, flags: &[&str]) -> (Outcome, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["train", "--no-shuffle", "--data", data.to_str().unwrap()];
        arguments.extend(["--save", "w.safetensors", "--log", "log.jsonl"]);
        arguments.extend(["--dump-gradients", "g.safetensors", "--dump-outputs", "o.npz"]);
        arguments.extend(["--dump-statistics", "s.safetensors"]);
        arguments.extend(flags);
        (self.run(folder.path(), &arguments), folder)
    }

    /// Outputs for the given data.
    #[track_caller]
    pub fn infer(&self, data: &Path, flags: &[&str]) -> Arrays {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["infer", "--data", data.to_str().unwrap(), "-o", "o.npz"];
        arguments.extend(flags);
        self.run(folder.path(), &arguments).ok();
        read_npz(&folder.path().join("o.npz"))
    }

    /// What `info --json` prints.
    #[track_caller]
    pub fn info(&self) -> serde_json::Value {
        self.run(Path::new("."), &["info", "--json"]).ok().json()
    }
}

impl Trained {
    fn read(folder: TempDir) -> Trained {
        let at = folder.path();
        let weight_file = at.join("w.safetensors");
        Trained {
            weights: read_safetensors(&weight_file),
            gradients: read_safetensors(&at.join("g.safetensors")),
            outputs: read_npz(&at.join("o.npz")),
            statistics: read_safetensors(&at.join("s.safetensors")),
            loss: losses(&at.join("log.jsonl")),
            weight_bytes: fs::read(&weight_file).unwrap(),
            weight_file,
            _folder: folder,
        }
    }
}

/// The losses of a log file.
fn losses(path: &Path) -> Array {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = lines
        .filter(|line| line.get("step").is_some())
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    Array::new(&[losses.len()], losses)
}
