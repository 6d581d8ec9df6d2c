//! What `cargo metadata` says about the workspace, reduced to what the checks read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The answer of `cargo metadata`; `resolve` is there unless it ran with `--no-deps`.
#[derive(Deserialize)]
pub struct Metadata {
    /// Every package: the members, and with `resolve` all they depend on.
    pub packages: Vec<Package>,
    /// The resolved dependency graph.
    pub resolve: Option<Resolve>,
}

/// One package as its manifest declares it.
#[derive(Deserialize)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Cargo's unique name of this package, a key of the resolved graph.
    pub id: String,
    /// Its SPDX licence expression, if it names one.
    pub license: Option<String>,
    /// Where its sources are published.
    pub repository: Option<String>,
    /// The path of its `Cargo.toml`.
    pub manifest_path: String,
    /// A registry's name; none for a member of the workspace.
    pub source: Option<String>,
    /// Its direct dependencies of all kinds.
    pub dependencies: Vec<Dependency>,
    /// What it builds.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A library, executable or other thing that a package builds.
#[derive(Deserialize)]
pub struct Target {
    /// Such as `lib`, `bin` or `proc-macro`.
    pub kind: Vec<String>,
}

impl Package {
    /// Such a package runs inside rustc, and nothing of it is linked into what uses it.
    fn is_procedural_macro(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

/// One entry of a dependency table.
#[derive(Deserialize)]
pub struct Dependency {
    /// The name of the package it stands for.
    pub name: String,
    /// None for a normal dependency, else `build` or `dev`.
    pub kind: Option<String>,
}

/// The resolved dependency graph.
#[derive(Deserialize)]
pub struct Resolve {
    /// One node a package.
    pub nodes: Vec<Node>,
}

/// A package and what it was resolved to depend on.
#[derive(Deserialize)]
pub struct Node {
    /// The package's id.
    pub id: String,
    /// Its resolved dependencies.
    pub deps: Vec<Edge>,
}

/// One resolved dependency.
#[derive(Deserialize)]
pub struct Edge {
    /// The id of the package depended on.
    pub pkg: String,
    /// Why: one entry a kind and platform.
    pub dep_kinds: Vec<EdgeKind>,
}

/// The kind of one resolved dependency.
#[derive(Deserialize)]
pub struct EdgeKind {
    /// None for a normal dependency, else `build` or `dev`.
    pub kind: Option<String>,
}

impl Metadata {
    /// Runs `cargo metadata` in `root`. With `resolved`, the graph of Linux on x86-64 comes with it.
    pub fn load(root: &Path, resolved: bool) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(root)
            .args(["metadata", "--format-version", "1"]);
        if resolved {
            command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
        } else {
            command.arg("--no-deps");
        }
        let output = command.output().context("cargo metadata did not start")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata printed something unexpected")
    }

    /// The member with this name.
    pub fn member(&self, name: &str) -> Option<&Package> {
        self.packages
            .iter()
            .find(|package| package.source.is_none() && package.name == name)
    }

    /// The members of the workspace.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    /// Every package name that `start` reaches: all kinds of its own dependencies, then the normal and
    /// build dependencies of the members among them. Needs no resolved graph: registry crates are leaves.
    pub fn reaches<'a>(&'a self, start: &'a Package) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut queue: VecDeque<&Dependency> = start.dependencies.iter().collect();
        while let Some(dependency) = queue.pop_front() {
            if dependency.name == start.name || !found.insert(dependency.name.as_str()) {
                continue;
            }
            if let Some(member) = self.member(&dependency.name) {
                queue.extend(
                    member
                        .dependencies
                        .iter()
                        .filter(|d| d.kind.as_deref() != Some("dev")),
                );
            }
        }
        found
    }

    /// The registry packages that are linked into what `start` builds: normal dependencies of the resolved
    /// graph without procedural macros, sorted by name and version.
    pub fn linked_into(&self, start: &Package) -> Result<Vec<&Package>> {
        let resolve = self
            .resolve
            .as_ref()
            .context("the metadata holds no resolved graph")?;
        let nodes: BTreeMap<&str, &Node> = resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
        let macros = self
            .packages
            .iter()
            .filter(|package| package.is_procedural_macro());
        let mut seen: BTreeSet<&str> = macros.map(|package| package.id.as_str()).collect();
        let mut queue = VecDeque::from([start.id.as_str()]);
        while let Some(id) = queue.pop_front() {
            if !seen.insert(id) {
                continue;
            }
            let node = nodes
                .get(id)
                .with_context(|| format!("{id} is not in the resolved graph"))?;
            let normal = node
                .deps
                .iter()
                .filter(|edge| edge.dep_kinds.iter().any(|k| k.kind.is_none()));
            queue.extend(normal.map(|edge| edge.pkg.as_str()));
        }
        let linked =
            |p: &&Package| p.source.is_some() && !p.is_procedural_macro() && seen.contains(p.id.as_str());
        let mut packages: Vec<&Package> = self.packages.iter().filter(linked).collect();
        packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(packages)
    }
}
