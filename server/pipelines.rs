//! From arguments to checked plans: which files are meant, what they say, what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::NaiveDate;
use millstream_engine::config::{self, Diagnostic, PipelineSource};
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;

use crate::cli::Exit;

/// The pipeline that runs when none is named.
const DEFAULT: &str = "pipelines/advertising.toml";
/// The copy that runs when that file is not there, so that the binary alone is enough to try it.
const EMBEDDED: &str = include_str!("../pipelines/advertising.toml");
/// What the copy is called in messages.
const EMBEDDED_NAME: &str = "(embedded) advertising.toml";

/// A pipeline file's name and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As the user named it.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// A pipeline file that has been checked.
pub struct Loaded {
    /// The file.
    pub file: File,
    /// What it means, or everything that is wrong with it.
    pub plan: Result<Plan, Vec<Diagnostic>>,
}

/// A pipeline that can run.
pub struct Checked {
    /// Its file.
    pub file: File,
    /// What it means.
    pub plan: Arc<Plan>,
}

/// The files that arguments mean: files as they are, directories for the `*.toml` in them, by name.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<File>> {
    if paths.is_empty() {
        return Ok(vec![default_file()?]);
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for inner in toml_files(path)? {
                files.push(File::read(&inner)?);
            }
        } else {
            files.push(File::read(path)?);
        }
    }
    Ok(files)
}

/// Loads everything that is named, or says on standard error what is wrong with it.
pub fn load_all(paths: &[PathBuf], registry: &Registry) -> Result<Vec<Checked>, Exit> {
    let files = find(paths).map_err(|error| refuse(&error))?;
    let mut checked = Vec::new();
    let mut valid = true;
    for file in files {
        let loaded = file.load(registry);
        if loaded.plan.is_err() {
            valid = false;
            eprintln!("{}", loaded.verdict());
        }
        checked.extend(loaded.plan.ok().map(|plan| Checked {
            file: loaded.file,
            plan: Arc::new(plan),
        }));
    }
    if valid { Ok(checked) } else { Err(Exit::Invalid) }
}

/// Says that what was asked for cannot be tried.
pub fn refuse(error: &anyhow::Error) -> Exit {
    eprintln!("error: {error:#}");
    Exit::Invalid
}

impl File {
    fn read(path: &Path) -> anyhow::Result<File> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(File {
            name: path.display().to_string(),
            text,
        })
    }

    /// Checks the file against what can be named in it.
    pub fn load(self, registry: &Registry) -> Loaded {
        let plan = self.plan(registry, None);
        Loaded { file: self, plan }
    }

    /// What the file means for the run of a date, or everything that is wrong with it.
    pub fn plan(&self, registry: &Registry, date: Option<NaiveDate>) -> Result<Plan, Vec<Diagnostic>> {
        self.plan_with(registry, date, &|name| std::env::var(name).ok())
    }

    /// The same with variables that are not those of the environment.
    pub fn plan_with(
        &self,
        registry: &Registry,
        date: Option<NaiveDate>,
        vars: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Plan, Vec<Diagnostic>> {
        let source = PipelineSource {
            file: &self.name,
            text: &self.text,
            vars,
            date,
        };
        config::load(&source, registry)
    }
}

impl Loaded {
    /// Everything that is wrong, each with its line, then how much it is; or that all is well.
    pub fn verdict(&self) -> String {
        let name = &self.file.name;
        match &self.plan {
            Ok(_) => format!("{name}: ok"),
            Err(wrong) => {
                let mut text = String::new();
                for one in wrong {
                    text.push_str(one.render().trim_end());
                    text.push_str("\n\n");
                }
                let errors = if wrong.len() == 1 { "error" } else { "errors" };
                format!("{text}{name}: {} {errors}", wrong.len())
            }
        }
    }
}

fn default_file() -> anyhow::Result<File> {
    let path = Path::new(DEFAULT);
    if path.exists() {
        return File::read(path);
    }
    Ok(File {
        name: EMBEDDED_NAME.into(),
        text: EMBEDDED.into(),
    })
}

fn toml_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("cannot read {}", dir.display()))?
            .path();
        if path.extension().is_some_and(|e| e == "toml") && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("{} holds no pipeline file (*.toml)", dir.display());
    }
    found.sort();
    Ok(found)
}

/// Refuses two pipelines of one name in one process: they would share state and metrics.
pub fn distinct(all: &[Checked]) -> anyhow::Result<()> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for Checked { file, plan } in all {
        if let Some(other) = seen.insert(&plan.name, &file.name) {
            bail!(
                "{other} and {} both name their pipeline {:?}; rename one",
                file.name,
                plan.name
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[File]) -> Vec<&str> {
        files
            .iter()
            .map(|f| f.name.rsplit('/').next().unwrap_or_default())
            .collect()
    }

    #[test]
    fn a_directory_stands_for_its_pipeline_files_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["b.toml", "a.toml", "notes.md"] {
            std::fs::write(dir.path().join(name), "name = \"x\"").expect("a writable directory");
        }
        std::fs::create_dir(dir.path().join("c.toml")).expect("a writable directory");
        let found = find(&[dir.path().to_path_buf()]).expect("two files");
        assert_eq!(names(&found), ["a.toml", "b.toml"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let empty = find(&[dir.path().to_path_buf()]).expect_err("no file");
        assert!(empty.to_string().contains("holds no pipeline file"), "{empty}");
        let missing = find(&[dir.path().join("x.toml")]).expect_err("no file");
        assert!(missing.to_string().contains("x.toml"), "{missing}");
    }

    #[test]
    fn without_arguments_the_embedded_pipeline_is_meant() {
        // Tests run in server/, where there is no pipelines/.
        let found = find(&[]).expect("the embedded file");
        assert_eq!(found[0].name, EMBEDDED_NAME);
        assert!(found[0].text.contains("name = \"advertising\""));
    }
}
