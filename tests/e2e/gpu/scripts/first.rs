//! gpu-first against the stand-in for the driver, which computes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{NETWORK, ended, has_numpy, numpy, packed};
use crate::support::run::compiler;

const PHASES: [&str; 8] = [
    "facts",
    "ladder",
    "agreement",
    "timings",
    "counters",
    "peers",
    "sanitizers",
    "ranks",
];

/// What stands in for NVIDIA's tools, for gdb and for PyTorch.
fn fakes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/gpu/scripts/fake")
}

/// A pack and a machine for it, made once for all tests.
pub struct Machine {
    folder: PathBuf,
    pub pack: PathBuf,
    /// How many values the packed network trains.
    values: u64,
}

impl Machine {
    /// None where there is no numpy.
    pub fn get() -> Option<&'static Machine> {
        static MACHINE: OnceLock<Option<Machine>> = OnceLock::new();
        MACHINE.get_or_init(|| has_numpy().then(Machine::new)).as_ref()
    }

    fn new() -> Machine {
        // Nothing drops a static: the folder is one that the next run clears.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu-first");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        // The name is that of a network that PyTorch is compared with.
        let pack = packed(&folder, "cuda", "tf32,bf16", "syncbnnet");
        let lib = folder.join("lib");
        fs::create_dir(&lib).unwrap();
        let stand_in = compiler().with_file_name("deps").join("libsyncbn_strict.so");
        symlink(stand_in, lib.join("libcuda.so.1")).unwrap();
        let info = Command::new(pack.join(format!("dev/{NETWORK}.tf32")))
            .args(["info", "--json"])
            .output();
        let info: serde_json::Value = serde_json::from_str(&ended(&info.unwrap(), 0)).unwrap();
        let trained = info["parameters"].as_array().unwrap().iter();
        let trained = trained.filter(|parameter| parameter["trained"] == true);
        let shape = |parameter: &serde_json::Value| parameter["shape"].as_array().unwrap().clone();
        let sizes = trained.map(|parameter| {
            shape(parameter)
                .iter()
                .filter_map(|size| size.as_u64())
                .product::<u64>()
        });
        let values = sizes.sum();
        Machine { folder, pack, values }
    }

    /// gpu-first with its output in the folder `name`.
    pub fn first(&self, name: &str) -> Command {
        let lib = self.folder.join("lib");
        let mut command = Command::new(self.pack.join("gpu-first"));
        command.arg("--output").arg(self.output(name));
        let python = format!("{}:{}", fakes().display(), numpy().display());
        let path = format!(
            "{}:{}",
            fakes().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command.env("PATH", path).env("PYTHONPATH", python);
        command
            .env("SYNCBN_NCCL_LIBRARY", lib.join("libcuda.so.1"))
            .env("LD_LIBRARY_PATH", lib);
        command.env("FAKE_TORCH_VALUES", self.values.to_string());
        command
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Phases and rows of the results in the folder `name`.
    pub fn results(&self, name: &str) -> Results {
        let text = fs::read_to_string(self.output(name).join("results.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let (phases, rows) = lines.partition(|line: &serde_json::Value| line["end"] == true);
        Results { phases, rows }
    }
}

/// The lines of results.jsonl.
pub struct Results {
    phases: Vec<serde_json::Value>,
    rows: Vec<serde_json::Value>,
}

impl Results {
    pub fn states(&self) -> Vec<(&str, &str)> {
        let phases = self.phases.iter();
        let pairs = phases.map(|line| (line["phase"].as_str().unwrap(), line["state"].as_str().unwrap()));
        pairs.collect()
    }

    /// The distinct verdicts of a phase, and how many rows it has.
    pub fn verdicts(&self, phase: &str) -> (Vec<&str>, usize) {
        let rows = self.rows.iter().filter(|row| row["phase"] == phase);
        let mut verdicts: Vec<_> = rows.map(|row| row["verdict"].as_str().unwrap()).collect();
        let count = verdicts.len();
        verdicts.sort_unstable();
        verdicts.dedup();
        (verdicts, count)
    }

    fn text(&self, phase: &str, what: &str) -> &str {
        let row = self
            .rows
            .iter()
            .find(|row| row["phase"] == phase && row["what"] == what);
        row.and_then(|row| row["text"].as_str())
            .unwrap_or_else(|| panic!("no row {what} in {phase}: {:?}", self.rows))
    }
}

/// Every phase as finished.
pub fn all_finished() -> Vec<(&'static str, &'static str)> {
    PHASES.map(|phase| (phase, "finished")).to_vec()
}

#[test]
fn a_run_against_a_driver_that_computes_nothing_ends_and_says_so() {
    let Some(machine) = Machine::get() else { return };
    let start = Instant::now();
    let report = ended(&machine.first("whole").output().unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(180), "{report}");
    let results = machine.results("whole");
    assert_eq!(results.states(), all_finished(), "{report}");
    assert_eq!(results.verdicts("facts").0, ["found"], "{report}");
    let device = results.text("facts", "info --device");
    assert!(device.contains("Strict GPU"), "{device}");
    let processor = results.text("facts", "processor");
    assert_eq!(processor, "Fake, 2 processors, x86-64-v3 without movbe");
    for (phase, rows) in [
        ("ladder", 3),
        ("agreement", 2),
        ("timings", 4),
        ("counters", 1),
        ("sanitizers", 3),
    ] {
        assert_eq!(results.verdicts(phase), (vec!["not computed"], rows), "{report}");
    }
    assert_eq!(
        results.verdicts("ranks"),
        (vec!["not computed", "ok"], 2),
        "{report}"
    );
    assert_eq!(results.verdicts("peers"), (vec!["found"], 4), "{report}");
    let counted = results.text("counters", "syncbnnet bf16 b32");
    assert_eq!(counted, "2 kernels, 2.001 ms, 0.005 GB");
    for words in [
        "rows not computed: the driver is a stand-in",
        "Strict GPU",
        "| agreement | finished |",
    ] {
        assert!(report.contains(words), "\"{words}\" is not in\n{report}");
    }
    assert!(!report.contains("WRONG"), "{report}");
    let files = fs::read_dir(machine.output("whole")).unwrap();
    let files: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!((5..=8).contains(&files.len()), "{files:?}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    assert!(files.iter().all(|name| name.chars().all(plain)), "{files:?}");
    let summary = fs::read_to_string(machine.output("whole/summary.md")).unwrap();
    assert!(report.ends_with(&summary), "{summary}");
}

#[test]
fn a_second_run_takes_over_what_the_first_has_finished() {
    let Some(machine) = Machine::get() else { return };
    let mut first = machine.first("begun");
    ended(&first.args(["--phases", "facts,ladder"]).output().unwrap(), 0);
    let mut second = machine.first("continued");
    second
        .arg("--resume")
        .arg(machine.output("begun"))
        .args(["--phases", "facts,ladder,agreement"]);
    let report = ended(&second.output().unwrap(), 0);
    let results = machine.results("continued");
    let finished = all_finished();
    assert_eq!(results.states(), finished[..3], "{report}");
    let begun = machine.results("begun");
    for phase in ["facts", "ladder"] {
        assert_eq!(results.verdicts(phase), begun.verdicts(phase));
        assert!(!report.contains(&format!("| {phase} | mlp")), "{report}");
        assert!(report.contains(&format!("| {phase} | finished |")), "{report}");
    }
    assert_eq!(results.verdicts("agreement"), (vec!["not computed"], 2));
    assert!(machine.output("continued/facts.txt").exists());
    let told = fs::read_to_string(machine.output("continued/report.md")).unwrap();
    assert!(told.contains("| before | ladder | mlp"), "{told}");
    let refused = machine.first("begun").args(["--phases", "facts"]).output();
    let text = ended(&refused.unwrap(), 2);
    assert!(text.contains("begun has results of another run"), "{text}");
    let nothing = machine
        .first("other")
        .arg("--resume")
        .arg(machine.output("none"))
        .output();
    let text = ended(&nothing.unwrap(), 2);
    assert!(text.contains("has no results.jsonl"), "{text}");
}

#[test]
fn where_only_assembled_code_fails_the_other_phases_go_on_with_ptx() {
    let Some(machine) = Machine::get() else { return };
    let output = machine
        .first("ptx")
        .args(["--phases", "ladder,agreement"])
        .env("SYNCBN_IMAGE", "cubin")
        .env("STRICT_FAIL", "cuMemAlloc_v2:1")
        .env("STRICT_ONLY", "SYNCBN_IMAGE=cubin")
        .output()
        .unwrap();
    let report = ended(&output, 1);
    let results = machine.results("ptx");
    assert_eq!(results.text("ladder", "from here on"), "SYNCBN_IMAGE=ptx");
    assert_eq!(
        results.verdicts("agreement"),
        (vec!["not computed"], 2),
        "{report}"
    );
    let row = results.text("agreement", &format!("{NETWORK} tf32"));
    assert_eq!(row, "ended as it should, PTX");
}

#[test]
fn the_driver_that_a_variable_names_is_asked_of_its_gpu() {
    let Some(machine) = Machine::get() else { return };
    let lib = machine.output("lib");
    for named in [lib.clone(), lib.join("libcuda.so.1")] {
        let mut command = Command::new("python3");
        command.arg(super::script("gpu_driver.py"));
        let output = command.env("SYNCBN_CUDA_LIBRARY", &named).output();
        let text = ended(&output.unwrap(), 0);
        assert!(text.contains("\"name\": \"Strict GPU\""), "{text}");
    }
    let mut command = Command::new("python3");
    command.arg(super::script("gpu_driver.py"));
    command.env("SYNCBN_CUDA_LIBRARY", "/nowhere/libcuda.so.1");
    let text = ended(&command.output().unwrap(), 1);
    assert!(text.contains("/nowhere/libcuda.so.1"), "{text}");
}

#[test]
fn a_phase_that_was_not_possible_is_no_failure_and_is_tried_again() {
    let Some(machine) = Machine::get() else { return };
    let mut without = machine.first("ranks-without");
    without
        .args(["--phases", "ranks"])
        .env_remove("SYNCBN_NCCL_LIBRARY");
    let report = ended(&without.output().unwrap(), 0);
    let states = [("ranks", "not possible here")];
    assert_eq!(machine.results("ranks-without").states(), states, "{report}");
    let mut with = machine.first("ranks-with");
    with.args(["--phases", "ranks", "--resume"])
        .arg(machine.output("ranks-without"));
    let report = ended(&with.output().unwrap(), 0);
    let results = machine.results("ranks-with");
    assert_eq!(results.states(), [("ranks", "finished")], "{report}");
    assert_eq!(results.verdicts("ranks").0, ["not computed", "ok"], "{report}");
}

#[test]
fn tools_that_cannot_work_on_this_machine_have_not_failed() {
    let Some(machine) = Machine::get() else { return };
    let profiler = "==ERROR== Failed to initialize the profiler: LibraryNotLoaded";
    let device = "========= Error: Device not supported. Please refer to the documentation";
    let counters = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission";
    for (name, ncu, status) in [("unable", profiler, "1"), ("unable-quietly", counters, "0")] {
        let mut command = machine.first(name);
        command.args(["--phases", "counters,sanitizers"]);
        command
            .env("FAKE_NCU", ncu)
            .env("FAKE_SANITIZER", device)
            .env("FAKE_STATUS", status);
        let report = ended(&command.output().unwrap(), 0);
        let results = machine.results(name);
        let impossible = vec!["not possible here"];
        assert_eq!(results.verdicts("counters"), (impossible.clone(), 1), "{report}");
        assert_eq!(results.verdicts("sanitizers"), (impossible, 3), "{report}");
        let counted = results.text("counters", "syncbnnet bf16 b32");
        assert!(counted.contains(&ncu[10..30]), "{counted}");
    }
}

#[test]
fn a_call_that_fails_is_named_and_looked_into() {
    let Some(machine) = Machine::get() else { return };
    let output: Output = machine
        .first("failed")
        .args(["--phases", "ladder,agreement"])
        .env("STRICT_FAIL", "cuMemAlloc_v2:1")
        .env("STRICT_ONLY", "GPU_FIRST_PHASE=ladder")
        .output()
        .unwrap();
    let report = ended(&output, 1);
    let results = machine.results("failed");
    let row = |more| results.text("ladder", &format!("{NETWORK} tf32, infer{more}"));
    for more in ["", ": CUDA_LAUNCH_BLOCKING=1", ": SYNCBN_IMAGE=ptx"] {
        assert!(row(more).contains("cuMemAlloc"), "{}", row(more));
    }
    assert_eq!(
        row(": memcheck"),
        "Program hit an error in its first call / at a kernel"
    );
    assert_eq!(results.verdicts("ladder"), (vec!["FAILED"], 4), "{report}");
    assert_eq!(
        results.verdicts("agreement"),
        (vec!["not computed"], 2),
        "{report}"
    );
    let failures = fs::read_to_string(machine.output("failed/failures.txt")).unwrap();
    assert!(failures.contains("infer: memcheck: FAILED"), "{failures}");
}
