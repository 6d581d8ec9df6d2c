//! What the environment asks of the stand-in.

use std::path::PathBuf;

use crate::{function::FUNCTIONS, plant::PLANTS};

/// Variables that hold this process's rank, of the project's launcher and of others.
const RANKS: [&str; 6] = [
    "SYNCBN_RANK",
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "PMIX_RANK",
    "SLURM_PROCID",
];

/// What an injection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// The call returns an error.
    Failure,
    /// The call never returns.
    Hang,
    /// The process ends within the call.
    Death,
}

/// One call of one function, on one rank or on all.
#[derive(Debug, Clone)]
struct Place {
    function: String,
    number: u64,
    rank: Option<String>,
}

/// The settings.
#[derive(Debug, Default)]
pub struct Settings {
    /// Log files are this and the rank.
    pub log: Option<PathBuf>,
    /// Number of GPUs.
    pub gpus: i32,
    /// This process's rank, if a launcher told it.
    pub rank: Option<String>,
    /// How often NCCL says that it is in progress before something is done.
    pub progress: u64,
    /// The planted fault.
    pub plant: Option<&'static str>,
    /// What is malformed.
    pub malformed: Vec<String>,
    injections: Vec<(Injected, Place)>,
}

impl Settings {
    /// From variables.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut settings = Settings {
            log: variable("STRICT_LOG").map(PathBuf::from),
            gpus: 1,
            rank: RANKS.iter().find_map(|name| variable(name)),
            ..Settings::default()
        };
        if let Some(text) = variable("STRICT_GPUS") {
            settings.gpus = settings.number("STRICT_GPUS", &text).unwrap_or(1);
        }
        if let Some(text) = variable("STRICT_PROGRESS") {
            settings.progress = settings.number("STRICT_PROGRESS", &text).unwrap_or(0);
        }
        let only = variable("STRICT_ONLY");
        let applies = match &only {
            None => true,
            Some(text) => match text.split_once('=') {
                Some((name, value)) => variable(name).as_deref() == Some(value),
                None => {
                    settings.malformed.push(format!("STRICT_ONLY={text}"));
                    false
                }
            },
        };
        for (name, injected) in [
            ("STRICT_FAIL", Injected::Failure),
            ("STRICT_HANG", Injected::Hang),
            ("STRICT_DIE", Injected::Death),
        ] {
            let Some(text) = variable(name) else { continue };
            for one in text.split(',') {
                match place(one) {
                    Some(place) if applies => settings.injections.push((injected, place)),
                    Some(_) => {}
                    None => settings.malformed.push(format!("{name}={one}")),
                }
            }
        }
        if let Some(text) = variable("STRICT_PLANT") {
            match PLANTS.iter().find(|(name, _)| *name == text) {
                Some((name, _)) if applies => settings.plant = Some(name),
                Some(_) => {}
                None => settings.malformed.push(format!("STRICT_PLANT={text}")),
            }
        }
        settings
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str, text: &str) -> Option<T> {
        let number = text.parse().ok();
        if number.is_none() {
            self.malformed.push(format!("{name}={text}"));
        }
        number
    }

    /// What happens at call number `number` (from 1) of a function.
    pub fn injected(&self, function: &str, number: u64) -> Option<Injected> {
        let here = |place: &Place| {
            place.function == function
                && place.number == number
                && place
                    .rank
                    .as_ref()
                    .is_none_or(|rank| Some(rank) == self.rank.as_ref())
        };
        let found = self.injections.iter().find(|(_, place)| here(place));
        found.map(|(injected, _)| *injected)
    }
}

/// `FUNCTION:N[:RANK]`
fn place(text: &str) -> Option<Place> {
    let mut words = text.split(':');
    let function = words.next()?.to_string();
    let number = words.next()?.parse().ok()?;
    let rank = words.next().map(str::to_string);
    let known = FUNCTIONS.iter().any(|known| known.name == function);
    (known && words.next().is_none()).then_some(Place {
        function,
        number,
        rank,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn an_injection_is_for_one_call_of_one_rank_under_one_condition() {
        let all = read(&[("STRICT_FAIL", "cuMemAlloc_v2:3")]);
        assert_eq!(all.injected("cuMemAlloc_v2", 3), Some(Injected::Failure));
        assert_eq!(all.injected("cuMemAlloc_v2", 2), None);
        assert_eq!(all.injected("cuMemFree_v2", 3), None);
        let hang = ("STRICT_HANG", "cuInit:1:1");
        let one = read(&[hang, ("SYNCBN_RANK", "1")]);
        assert_eq!(one.injected("cuInit", 1), Some(Injected::Hang));
        assert_eq!(read(&[hang, ("RANK", "0")]).injected("cuInit", 1), None);
        let only = |value| read(&[hang, ("RANK", "1"), ("STRICT_ONLY", "PHASE=a"), ("PHASE", value)]);
        assert_eq!(only("a").injected("cuInit", 1), Some(Injected::Hang));
        assert_eq!(only("b").injected("cuInit", 1), None);
    }

    #[test]
    fn what_is_malformed_is_said() {
        let settings = read(&[
            ("STRICT_FAIL", "cuNothing:1"),
            ("STRICT_HANG", "cuInit"),
            ("STRICT_DIE", "cuInit:1:0:2"),
            ("STRICT_GPUS", "two"),
            ("STRICT_PLANT", "nothing"),
        ]);
        assert_eq!(settings.malformed.len(), 5, "{:?}", settings.malformed);
        assert_eq!(settings.gpus, 1);
    }
}
