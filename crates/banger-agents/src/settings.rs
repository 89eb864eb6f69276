//! Our hook in a settings file of Claude Code or Codex. Everything else in the file, its order, its
//! spaces and its comments stay.

use std::path::Path;

use banger_api::{ApiError, ErrorCode, Hint};
use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode};
use jsonc_parser::json;

/// Words in the command of our hook, by which it is recognized; its user may have changed others.
const MARKS: [&str; 2] = [" agent hook ", "--vm"];

/// The setting of Claude Code that switches all hooks off.
const DISABLED: &str = "disableAllHooks";

/// The hook for this event, as the text of an element.
fn element(matcher: &str, command: &str) -> CstInputValue {
    json!({
        "matcher": matcher,
        "hooks": [{ "type": "command", "command": command, "timeout": 30 }],
    })
}

/// Adds our hook, replacing an earlier one. `None` is an absent file.
///
/// # Errors
/// The file is not JSON, or has something else where hooks belong.
pub fn add(
    path: &Path,
    text: Option<&str>,
    matcher: &str,
    command: &str,
) -> Result<String, ApiError> {
    let root = parse(path, text.filter(|text| !text.trim().is_empty()).unwrap_or("{}\n"))?;
    let object = root.object_value_or_create().ok_or_else(|| unexpected(path, "the document"))?;
    are_unique(path, &root)?;
    if are_disabled(&object) {
        let text = format!("`{}` switches hooks off with `{DISABLED}`", path.display());
        return Err(ApiError::new(ErrorCode::BadRequest, text)
            .with_hint(Hint::text("take that out first: the agent would run commands here")));
    }
    let hooks =
        object.object_value_or_create("hooks").ok_or_else(|| unexpected(path, "`hooks`"))?;
    let list = hooks
        .array_value_or_create("PreToolUse")
        .ok_or_else(|| unexpected(path, "`hooks.PreToolUse`"))?;
    let present = ours(&list);
    let same = |node: &CstNode| {
        let node = node.to_string();
        let has = |word: &str| node.contains(&serde_json::Value::from(word).to_string());
        has(matcher) && has(command)
    };
    if let (Some(text), [one]) = (text, present.as_slice())
        && same(&one.entry)
    {
        return Ok(text.to_owned());
    }
    present.into_iter().for_each(Ours::remove);
    list.append(element(matcher, command));
    Ok(root.to_string())
}

/// Removes our hook, and what is empty after that; `None` if nothing is left of the file.
///
/// # Errors
/// The file is not JSON.
pub fn remove(path: &Path, text: &str) -> Result<Option<String>, ApiError> {
    let root = parse(path, text)?;
    let Some((object, hooks, list)) = lists(&root) else { return Ok(Some(text.to_owned())) };
    let ours = ours(&list);
    if ours.is_empty() {
        return Ok(Some(text.to_owned()));
    }
    ours.into_iter().for_each(Ours::remove);
    let mut emptied = list.elements().is_empty();
    if emptied {
        remove_property(&hooks, "PreToolUse");
        emptied = hooks.properties().is_empty();
    }
    if emptied {
        remove_property(&object, "hooks");
        emptied = object.properties().is_empty();
    }
    let text = root.to_string();
    let has_comments = text.contains("//") || text.contains("/*");
    Ok((!emptied || has_comments).then_some(text))
}

/// The command of our hook.
///
/// # Errors
/// The file is not JSON.
pub fn find(path: &Path, text: &str) -> Result<bool, ApiError> {
    let root = parse(path, text)?;
    are_unique(path, &root)?;
    Ok(lists(&root)
        .is_some_and(|(object, _, list)| !are_disabled(&object) && !ours(&list).is_empty()))
}

/// Refuses names that are there twice, of which the agent reads another one than this.
fn are_unique(path: &Path, root: &CstRootNode) -> Result<(), ApiError> {
    let object = root.object_value();
    let hooks = object.as_ref().and_then(|object| object.object_value("hooks"));
    for (object, name) in [(object, "hooks"), (hooks, "PreToolUse")] {
        let properties = object.map(|object| object.properties()).unwrap_or_default();
        let names = properties.iter().filter_map(|property| property.name()?.decoded_value().ok());
        if names.filter(|found| found == name).count() > 1 {
            return Err(unexpected(path, &format!("`{name}`, which is there twice,")));
        }
    }
    Ok(())
}

/// Whether hooks are switched off.
fn are_disabled(object: &CstObject) -> bool {
    let value = object.get(DISABLED).and_then(|property| property.value());
    value.and_then(|value| value.as_boolean_lit()).is_some_and(|literal| literal.value())
}

fn lists(root: &CstRootNode) -> Option<(CstObject, CstObject, CstArray)> {
    let object = root.object_value()?;
    let hooks = object.object_value("hooks")?;
    let list = hooks.array_value("PreToolUse")?;
    Some((object, hooks, list))
}

/// An entry with our hook, which may have hooks of others.
struct Ours {
    entry: CstNode,
    hooks: Vec<CstNode>,
    is_alone: bool,
}

impl Ours {
    fn remove(self) {
        if self.is_alone {
            self.entry.remove();
        } else {
            self.hooks.into_iter().for_each(CstNode::remove);
        }
    }
}

fn ours(list: &CstArray) -> Vec<Ours> {
    let of_entry = |entry: CstNode| {
        let all = entry.as_object()?.array_value("hooks")?.elements();
        let count = all.len();
        let hooks: Vec<CstNode> = all.into_iter().filter(is_ours).collect();
        let is_alone = hooks.len() == count;
        (!hooks.is_empty()).then_some(Ours { entry, hooks, is_alone })
    };
    list.elements().into_iter().filter_map(of_entry).collect()
}

fn is_ours(hook: &CstNode) -> bool {
    let command = hook.as_object().and_then(|hook| hook.get("command")).and_then(|it| it.value());
    let text = command.map(|command| command.to_string()).unwrap_or_default();
    MARKS.iter().all(|mark| text.contains(mark))
}

fn remove_property(object: &CstObject, name: &str) {
    if let Some(property) = object.get(name) {
        property.remove();
    }
}

fn parse(path: &Path, text: &str) -> Result<CstRootNode, ApiError> {
    CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| {
        let text = format!("`{}` is not JSON", path.display());
        ApiError::new(ErrorCode::BadRequest, text)
            .caused_by(&error)
            .with_hint(Hint::text("correct it first; it is not changed"))
    })
}

fn unexpected(path: &Path, place: &str) -> ApiError {
    let text = format!("{place} in `{}` is of an unexpected type", path.display());
    ApiError::new(ErrorCode::BadRequest, text)
        .with_hint(Hint::text("correct it first; it is not changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str = "'/usr/bin/banger' agent hook --vm web || exit 2";

    fn added(text: Option<&str>) -> String {
        add(Path::new("settings.json"), text, "Bash", COMMAND).unwrap()
    }

    fn removed(text: &str) -> Option<String> {
        remove(Path::new("settings.json"), text).unwrap()
    }

    #[test]
    fn a_hook_is_added_and_taken_out_again() {
        for text in [
            "{\n  \"model\": \"x\",\n  \"hooks\": {\n    \"Stop\": []\n  }\n}\n",
            "{\n    \"b\": 1,\n    \"a\": [1,  2] // two\n}\n",
            "{\"hooks\": {\"PreToolUse\": [{\"matcher\": \"Write\", \"hooks\": []}]}}",
        ] {
            let with = added(Some(text));
            assert!(find(Path::new("x"), &with).unwrap(), "{with}");
            assert!(!find(Path::new("x"), text).unwrap());
            assert_eq!(added(Some(&with)), with, "a second time");
            let without = removed(&with).unwrap();
            let even = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(even(&without), even(text), "{with}");
        }
        let created = added(None);
        assert!(created.contains("\"PreToolUse\""), "{created}");
        assert_eq!(removed(&created), None);
        assert_eq!(removed("{\"a\": 1}").as_deref(), Some("{\"a\": 1}"));
    }

    #[test]
    fn hooks_of_others_stay() {
        let other = "{\"hooks\": {\"PreToolUse\": [{\"matcher\": \"Write\", \"hooks\": \
                     [{\"type\": \"command\", \"command\": \"/opt/my-agent hook --audit\"}]}]}}";
        let with = added(Some(other));
        assert!(with.contains("my-agent hook --audit"), "{with}");
        let even = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(even(&removed(&with).unwrap()), even(other));
        // Another one in our entry.
        let mine = "{ \"type\": \"command\", \"command\": \"/usr/bin/my-linter\" }";
        let shared = added(None).replacen("\"hooks\": [", &format!("\"hooks\": [{mine},"), 2);
        let again = add(Path::new("x"), Some(&shared), "Bash", &COMMAND.replace("web", "db"));
        let again = again.unwrap();
        assert!(again.contains("my-linter") && again.contains("--vm db"), "{again}");
        assert!(!again.contains("--vm web"), "{again}");
        let left = removed(&again).unwrap();
        assert!(left.contains("my-linter") && !left.contains("agent hook"), "{left}");
    }

    #[test]
    fn a_file_that_is_not_as_expected_is_refused() {
        for text in [
            "{",
            "[]",
            "{\"hooks\": 1}",
            "{\"hooks\": {\"PreToolUse\": {}}}",
            "{\"hooks\": {}, \"hooks\": {}}",
            "{\"hooks\": {\"PreToolUse\": [], \"PreToolUse\": []}}",
            "{\"disableAllHooks\": true}",
        ] {
            let error = add(Path::new("s.json"), Some(text), "Bash", COMMAND).unwrap_err();
            assert!(error.message.contains("`s.json`"), "{text}: {error}");
        }
        let disabled = added(None).replacen('{', "{\"disableAllHooks\": true,", 1);
        assert!(!find(Path::new("x"), &disabled).unwrap());
    }
}
