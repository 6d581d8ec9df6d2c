//! The arguments of `syncbn-opt`.

use std::str::FromStr;

use syncbn_ir::attributes::Word;
use syncbn_ir::ops::RunningVar;

use crate::manager::{PrintAfter, Selection};
use crate::options::{Options, Order, Storage};
use crate::pipelines;

/// What `syncbn-opt --help` says.
pub const HELP: &str = "\
syncbn-opt [FILE | -] --passes=a,b [options]

Reads a graph in text form, runs passes, writes the graph to standard output.

  --passes=LIST            passes and pipelines, in order; --pass-help lists them
  --skip=LIST              passes that are left out
  --stop-after=PASS        the last pass that runs
  --print-ir-after=LIST    shows the graph after these passes, on standard error
  --print-ir-after-all     shows the graph after every pass
  --mode=MODE              train (default), infer
  --bn=MODE                sync (default), local, frozen, group=K
  --running-var=RULE       pytorch (default), population
  --loss=LOSS              cross-entropy (default), mse
  --loss-output=NAME       the output that the loss is taken of
  --input-gradients        takes gradients of data inputs too
  --batch=N                largest batch of one rank (default 32)
  --channels-last          puts channels innermost
  --channel-multiple=N     pads the channels of convolutions to a multiple of N (default 1)
  --bf16-activations       stores activations in bf16, as the GPU part has them under --precision bf16
  --machine=CPU            chooses schedules for x86-64, x86-64-v3 or x86-64-v4
  --gpu=PRECISION          chooses schedules for a GPU that multiplies in tf32, bf16 or f32
  --winograd=on|off        whether schedules may be Winograd's (default on)
  --schedule=NODE=TEXT     the schedule of a node; may be given several times
  --bucket-bytes=N         bytes of gradients that one all-reduce sums (default 26214400)
  --verbose, -v            says how long each pass took, on standard error
  --message-format=FORMAT  human (default), json: one object a message, on standard error
  --pass-help              lists all passes
";

/// What the arguments ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arguments {
    /// The graph's file; None stands for standard input.
    pub file: Option<String>,
    /// Which passes.
    pub selection: Selection,
    /// Their options.
    pub options: Options,
    /// Whether messages are JSON.
    pub json: bool,
    /// Whether the time of each pass is said.
    pub verbose: bool,
    /// A text that stands for all work: `--help` or `--pass-help`.
    pub help: Option<String>,
}

impl Arguments {
    /// Reads arguments as they stand on a command line or in a `// RUN:` line.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Arguments, String> {
        let mut parsed = Arguments::default();
        let mut files = 0;
        for argument in arguments {
            let argument = argument.as_ref();
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
                _ => (argument, None),
            };
            if parsed.set(flag, value)? {
                continue;
            }
            if flag.starts_with("--") {
                return Err(format!("unknown option {argument}; --help lists all"));
            }
            files += 1;
            parsed.file = (argument != "-").then(|| argument.to_string());
        }
        match files {
            0 | 1 => Ok(parsed),
            _ => Err("more than one file was given".to_string()),
        }
    }

    /// Takes one option over; false when there is none of this name.
    fn set(&mut self, flag: &str, value: Option<&str>) -> Result<bool, String> {
        let needed = || {
            value
                .filter(|v| !v.is_empty())
                .ok_or_else(|| format!("{flag} needs a value: {flag}=..."))
        };
        let list = || {
            Ok::<_, String>(
                needed()?
                    .split(',')
                    .map(|s| s.trim().to_string())
                    .collect::<Vec<_>>(),
            )
        };
        fn word<T: FromStr<Err = String>>(flag: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|e| format!("{flag}: {e}"))
        }
        match flag {
            "--passes" => self.selection.passes = list()?,
            "--skip" => self.selection.skip = list()?,
            "--stop-after" => self.selection.stop_after = Some(needed()?.to_string()),
            "--print-ir-after" => self.selection.print_ir_after = PrintAfter::Passes(list()?),
            "--print-ir-after-all" => self.selection.print_ir_after = PrintAfter::All,
            "--mode" => self.options.mode = word(flag, needed()?)?,
            "--bn" => self.options.batch_norm = word(flag, needed()?)?,
            "--loss" => self.options.loss = word(flag, needed()?)?,
            "--loss-output" => self.options.loss_output = Some(needed()?.to_string()),
            "--input-gradients" => self.options.input_gradients = true,
            "--running-var" => {
                let value = needed()?;
                let rule = RunningVar::from_word(value, &[]);
                let message = || format!("{flag}: \"{value}\" is none of pytorch, population");
                self.options.running_var = rule.ok_or_else(message)?;
            }
            "--batch" => self.options.batch_bound = positive(flag, needed()?)?,
            "--channels-last" => self.options.target.order = Order::ChannelsLast,
            "--channel-multiple" => self.options.target.channel_multiple = positive(flag, needed()?)?,
            "--bf16-activations" => self.options.target.storage = Storage::Bf16,
            "--machine" => self.options.target.machine = Some(word(flag, needed()?)?),
            "--gpu" => self.options.target.gpu = Some(word(flag, needed()?)?),
            "--winograd" => self.options.winograd = one_of(flag, needed()?, ["off", "on"])?,
            "--schedule" => self.options.schedules.push(word(flag, needed()?)?),
            "--bucket-bytes" => self.options.bucket_bytes = positive(flag, needed()?)? as u64,
            "--verbose" | "-v" => self.verbose = true,
            "--message-format" => self.json = one_of(flag, needed()?, ["human", "json"])?,
            "--pass-help" => self.help = Some(pipelines::help()),
            "--help" | "-h" => self.help = Some(HELP.to_string()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn positive(flag: &str, value: &str) -> Result<usize, String> {
    let n = value.parse().ok().filter(|&n: &usize| n > 0);
    n.ok_or_else(|| format!("{flag}: \"{value}\" is not a positive number"))
}

/// Whether the value is the second of two words.
fn one_of(flag: &str, value: &str, words: [&str; 2]) -> Result<bool, String> {
    match words.iter().position(|&word| word == value) {
        Some(at) => Ok(at == 1),
        None => Err(format!("{flag}: \"{value}\" is none of {}", words.join(", "))),
    }
}
