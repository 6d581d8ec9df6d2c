//! The device code of a compiled network: kernels, their descriptions, and the tools that made and read it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol, SymbolIndex};
use syncbn_abi::{GpuKernel, Images};

use crate::support::run::{compile, compiler, run};

/// Tiles of all shapes are chosen for some layers of the network.
const BATCH: &str = "128";

/// The code for one GPU.
struct Code {
    bytes: Vec<u8>,
    registers: BTreeMap<String, u64>,
}

/// The device code of an executable.
pub struct Device {
    /// Versions of LLVM, ptxas and nvdisasm.
    pub tools: String,
    disassembler: PathBuf,
    code: BTreeMap<u32, Code>,
    kernels: BTreeMap<String, GpuKernel>,
    folder: tempfile::TempDir,
}

impl Device {
    /// Compiles a network; None without ptxas or nvdisasm, which is said.
    #[allow(clippy::print_stderr)]
    pub fn of(model: &[u8], precision: &str) -> Option<Device> {
        let target = compiler().ancestors().nth(2).unwrap().to_path_buf();
        let disassembler = target.join("tools/nvdisasm/nvidia/cu13/bin/nvdisasm");
        if !disassembler.exists() {
            eprintln!("there is no nvdisasm (make ptxas): machine code is not read");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::write(at.join("m.onnx"), model).unwrap();
        let flags = ["m.onnx", "-o", "m.bin", "--target", "cuda", "-v"];
        let flags = [&flags[..], &["--batch", BATCH, "--precision", precision]].concat();
        let said = compile(at, &flags).ok().stderr;
        let Some(ptxas) = said.lines().find_map(|line| line.trim().strip_prefix("ptxas: ")) else {
            eprintln!("there is no ptxas (make ptxas): machine code is not made");
            return None;
        };
        let ptxas = ptxas.split(", for ").next().unwrap();
        let tools = format!(
            "LLVM {}, ptxas {}, nvdisasm {}",
            llvm_version(),
            version(Path::new(ptxas)),
            version(&disassembler)
        );
        let info = run(&at.join("m.bin"), at, &["info", "--json"]).ok().json();
        let kernels: Vec<GpuKernel> = serde_json::from_value(info["gpu"]["kernels"].clone()).unwrap();
        let kernels = kernels.into_iter().map(|kernel| (kernel.name.clone(), kernel));
        Some(Device {
            tools,
            disassembler,
            code: cubins(&std::fs::read(at.join("m.bin")).unwrap()),
            kernels: kernels.collect(),
            folder,
        })
    }

    /// What nvdisasm prints of the code for a GPU.
    pub fn listing(&self, capability: u32) -> String {
        let name = format!("{capability}.cubin");
        std::fs::write(self.folder.path().join(&name), &self.code[&capability].bytes).unwrap();
        let listing = run(&self.disassembler, self.folder.path(), &["-c", &name]);
        String::from_utf8(listing.ok().stdout).unwrap()
    }

    /// Registers of each of a kernel's threads.
    pub fn registers(&self, capability: u32, kernel: &str) -> u64 {
        self.code[&capability].registers[kernel]
    }

    /// What kind of kernel this is: its operator and stage, the threads of a block, its shared memory, by which tiles
    /// differ, and its tensors, by which fused operators differ.
    pub fn kind(&self, name: &str) -> String {
        let kernel = &self.kernels[name];
        let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let operator: Vec<&str> = name.split('_').take_while(|word| !is_number(word)).collect();
        let numbers: Vec<&str> = name.split('_').filter(is_number).collect();
        let stage = numbers.get(1).map_or(String::new(), |stage| format!(".{stage}"));
        // The last parameter is scratch memory.
        let tensors = kernel.parameters.as_ref().map_or(0, |all| all.len() - 1);
        format!(
            "{}{stage} threads={} shared={} tensors={tensors}",
            operator.join("_"),
            kernel.block,
            kernel.shared
        )
    }
}

/// The version of the LLVM that the compiler is built with.
fn llvm_version() -> String {
    let prefix =
        std::env::var_os("LLVM_SYS_221_PREFIX").map_or_else(|| "/usr/lib/llvm-22".into(), PathBuf::from);
    let output = Command::new(prefix.join("bin/llvm-config"))
        .arg("--version")
        .output();
    let output = output.expect("llvm-config of LLVM 22 is installed (scripts/setup)");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// The version that a tool of CUDA prints last, as `V13.0.88`.
fn version(tool: &Path) -> String {
    let output = Command::new(tool).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split([' ', '\n']).find_map(|word| word.strip_prefix('V'));
    word.unwrap_or_else(|| panic!("{} says no version: {text}", tool.display()))
        .to_string()
}

/// The cubins of an executable, which stand in it behind their table.
fn cubins(executable: &[u8]) -> BTreeMap<u32, Code> {
    let head = br#"{"images":[{"kind":"cubin""#;
    let start = executable.windows(head.len()).position(|bytes| bytes == head);
    let table = &executable[start.expect("the executable has cubins")..];
    let end = table.iter().position(|byte| *byte == b'\n').unwrap();
    let images: Images = serde_json::from_slice(&table[..end]).unwrap();
    let mut rest = &table[end + 1..];
    let mut all = BTreeMap::new();
    for image in images.images {
        let (bytes, after) = rest.split_at(image.bytes as usize);
        rest = after;
        if image.kind == "cubin" {
            let code = Code {
                registers: registers(bytes),
                bytes: bytes.to_vec(),
            };
            all.insert(image.compute_capability, code);
        }
    }
    all
}

/// Registers by kernel, from the section `.nv.info`: attributes of four bytes (format, number, size), and a value of
/// that size where the format is 4.
fn registers(cubin: &[u8]) -> BTreeMap<String, u64> {
    const SIZED: u8 = 4;
    const REGISTERS: u8 = 0x2f;
    let file = object::File::parse(cubin).unwrap();
    let section = file
        .section_by_name(".nv.info")
        .expect("a cubin describes its kernels");
    let mut rest = section.data().unwrap();
    let mut all = BTreeMap::new();
    while let [format, attribute, low, high, after @ ..] = rest {
        let size = usize::from(u16::from_le_bytes([*low, *high]));
        let (value, after) = after.split_at(if *format == SIZED { size } else { 0 });
        rest = after;
        if let (&REGISTERS, [a, b, c, d, registers, ..]) = (attribute, value) {
            let symbol = SymbolIndex(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
            let symbol = file.symbol_by_index(symbol).unwrap();
            all.insert(symbol.name().unwrap().to_string(), u64::from(*registers));
        }
    }
    all
}
