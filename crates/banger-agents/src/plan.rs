//! The files of each agent.

use std::path::{Path, PathBuf};

use banger_api::{ApiError, ErrorCode, Hint};

use crate::edit::{Change, check_inside, read};
use crate::{Agent, Workspace, settings, texts};

/// Tools that run commands on the host, of Claude Code.
const CLAUDE_TOOLS: &str = "Bash|Monitor|PowerShell";
/// The tool that runs commands, of Codex.
const CODEX_TOOLS: &str = "^Bash$";

/// Changes of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The folder that they are in.
    pub top: PathBuf,
    /// Each needed.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Makes the changes in order.
    ///
    /// # Errors
    /// That of the first that cannot be made; those before it stay.
    pub fn make(&self) -> Result<(), ApiError> {
        self.changes.iter().try_for_each(|change| change.make(&self.top))
    }
}

/// A file of the workspace: one with our hook in it, or one of ours.
enum File {
    Settings(PathBuf, &'static str),
    Plugin(PathBuf),
    Skill(PathBuf),
}

fn files(agent: Agent, top: &Path) -> [File; 2] {
    match agent {
        Agent::Claude => [
            File::Settings(top.join(".claude/settings.local.json"), CLAUDE_TOOLS),
            File::Skill(top.join(".claude/skills/banger/SKILL.md")),
        ],
        Agent::Opencode => [
            File::Plugin(top.join(".opencode/plugins/banger.js")),
            File::Skill(top.join(".opencode/skills/banger/SKILL.md")),
        ],
        Agent::Codex => [
            File::Settings(top.join(".codex/hooks.json"), CODEX_TOOLS),
            File::Skill(top.join(".agents/skills/banger/SKILL.md")),
        ],
    }
}

/// What makes an agent's commands run in the workspace's machine. `program` is the path of banger.
///
/// # Errors
/// A file cannot be read or changed, or is somebody else's.
pub fn install(agent: Agent, workspace: &Workspace, program: &str) -> Result<Plan, ApiError> {
    let mut changes = Vec::new();
    for file in files(agent, &workspace.host) {
        changes.push(match file {
            File::Settings(path, matcher) => {
                let before = read(&path)?;
                let line = texts::hook_line(agent, workspace, program);
                let after = Some(settings::add(&path, before.as_deref(), matcher, &line)?);
                Change { path, before, after }
            }
            File::Plugin(path) => {
                let words = texts::hook_words(agent, workspace, program);
                own(path, Some(texts::plugin(&words)))?
            }
            File::Skill(path) => own(path, Some(texts::skill(workspace)))?,
        });
    }
    let plan = plan(&workspace.host, changes);
    plan.changes.iter().try_for_each(|change| check_inside(&change.path, &plan.top))?;
    Ok(plan)
}

/// What takes it out again.
///
/// # Errors
/// As [`install`].
pub fn uninstall(agent: Agent, top: &Path) -> Result<Plan, ApiError> {
    let mut changes = Vec::new();
    for file in files(agent, top) {
        changes.push(match file {
            File::Settings(path, _) => {
                let before = read(&path)?;
                let after = match &before {
                    Some(text) => settings::remove(&path, text)?,
                    None => None,
                };
                Change { path, before, after }
            }
            File::Plugin(path) | File::Skill(path) => own(path, None)?,
        });
    }
    Ok(plan(top, changes))
}

/// The machine in which the agent's commands run; none if they run on the host.
///
/// # Errors
/// A file cannot be read.
pub fn machine(agent: Agent, top: &Path) -> Result<Option<String>, ApiError> {
    let [first, _] = files(agent, top);
    let text = match &first {
        File::Settings(path, _) => match read(path)? {
            Some(text) if settings::find(path, &text)? => text,
            _ => return Ok(None),
        },
        File::Plugin(path) | File::Skill(path) => {
            read(path)?.filter(|text| text.contains(texts::MARK)).unwrap_or_default()
        }
    };
    let after = text.split_once("--vm").map(|(_, rest)| rest.trim_start_matches(is_border));
    Ok(after.and_then(|rest| rest.split(is_border).next()).map(str::to_owned))
}

/// What stands around the words of a hook.
fn is_border(character: char) -> bool {
    matches!(character, ' ' | '"' | ',' | '\'' | '=')
}

fn plan(top: &Path, changes: Vec<Change>) -> Plan {
    let changes = changes.into_iter().filter(Change::is_needed).collect();
    Plan { top: top.to_owned(), changes }
}

/// The change of a file that is ours as a whole.
fn own(path: PathBuf, after: Option<String>) -> Result<Change, ApiError> {
    let before = read(&path)?;
    match &before {
        Some(text) if !text.contains(texts::MARK) => match after {
            // Somebody else's file is not removed.
            None => Ok(Change { path, after: before.clone(), before }),
            Some(_) => {
                let text = format!("`{}` exists and is not banger's", path.display());
                Err(ApiError::new(ErrorCode::NameTaken, text)
                    .with_hint(Hint::text("rename it, or remove it")))
            }
        },
        _ => Ok(Change { path, before, after }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn workspace(top: &Path) -> Workspace {
        Workspace { host: top.to_owned(), vm: "web".into(), guest: "/root/app".into() }
    }

    fn paths(top: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(top).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(paths(&path));
            }
            found.push(path);
        }
        found.sort();
        found
    }

    #[test]
    fn installing_twice_is_installing_once_and_nothing_is_left_after_uninstalling() {
        for agent in Agent::ALL {
            let folder = tempfile::tempdir().unwrap();
            let top = folder.path();
            assert_eq!(machine(agent, top).unwrap(), None);
            install(agent, &workspace(top), "/usr/bin/banger").unwrap().make().unwrap();
            assert_eq!(machine(agent, top).unwrap().as_deref(), Some("web"), "{agent}");
            let again = install(agent, &workspace(top), "/usr/bin/banger").unwrap();
            assert_eq!(again.changes, [], "{agent}");
            uninstall(agent, top).unwrap().make().unwrap();
            assert_eq!(paths(top), Vec::<PathBuf>::new(), "{agent}");
            assert_eq!(uninstall(agent, top).unwrap().changes, []);
        }
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused_and_one_within_it_is_not() {
        let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let top = folder.path();
        std::os::unix::fs::symlink(home.path(), top.join(".claude")).unwrap();
        let error = install(Agent::Claude, &workspace(top), "banger").unwrap_err();
        assert!(error.message.contains("by a link, which is outside of"), "{error:?}");
        assert_eq!(paths(home.path()), Vec::<PathBuf>::new());
        fs::remove_file(top.join(".claude")).unwrap();
        fs::create_dir(top.join(".claude")).unwrap();
        let link = top.join(".claude/settings.local.json");
        std::os::unix::fs::symlink("nowhere.json", &link).unwrap();
        for made in [install(Agent::Claude, &workspace(top), "x"), uninstall(Agent::Claude, top)] {
            let error = made.unwrap_err();
            assert!(error.message.contains("a link to a file that does not exist"), "{error:?}");
        }
        assert!(link.is_symlink());
        std::os::unix::fs::symlink("nowhere", top.join(".opencode")).unwrap();
        let error = install(Agent::Opencode, &workspace(top), "banger").unwrap_err();
        assert!(error.message.contains("a link to a folder that does not exist"), "{error:?}");
        fs::create_dir(top.join("tools")).unwrap();
        std::os::unix::fs::symlink("tools", top.join(".codex")).unwrap();
        install(Agent::Codex, &workspace(top), "banger").unwrap().make().unwrap();
        assert!(top.join("tools/hooks.json").is_file());
    }

    #[test]
    fn another_machine_replaces_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut workspace = workspace(folder.path());
        install(Agent::Claude, &workspace, "banger").unwrap().make().unwrap();
        let settings = folder.path().join(".claude/settings.local.json");
        let edited = fs::read_to_string(&settings).unwrap().replace("--vm web", "--vm=web");
        fs::write(&settings, edited).unwrap();
        assert_eq!(machine(Agent::Claude, folder.path()).unwrap().as_deref(), Some("web"));
        workspace.vm = "db".into();
        install(Agent::Claude, &workspace, "banger").unwrap().make().unwrap();
        let text = fs::read_to_string(settings).unwrap();
        assert!(text.contains("--vm db") && !text.contains("web"), "{text}");
    }

    #[test]
    fn files_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        let skill = top.join(".claude/skills/banger/SKILL.md");
        fs::create_dir_all(skill.parent().unwrap()).unwrap();
        fs::write(&skill, "mine").unwrap();
        let refused = install(Agent::Claude, &workspace(top), "banger").unwrap_err();
        assert_eq!(refused.code, ErrorCode::NameTaken);
        assert_eq!(uninstall(Agent::Claude, top).unwrap().changes, []);
        // A change between the plan and its execution.
        fs::remove_file(&skill).unwrap();
        let plan = install(Agent::Claude, &workspace(top), "banger").unwrap();
        fs::write(&skill, "mine").unwrap();
        assert_eq!(plan.make().unwrap_err().code, ErrorCode::Busy);
        assert_eq!(fs::read_to_string(&skill).unwrap(), "mine");
    }
}
