//! The answer to an agent that is about to run a command: the same command in the machine.
//!
//! Claude Code and Codex send one JSON document on standard input and read one from standard output
//! (`PreToolUse`); the plugin for opencode does the same. An answer that is not given blocks the
//! command, so that it never runs on the host instead.

use std::path::Path;

use banger_api::{ApiError, ErrorCode, excerpt};
use serde_json::{Value, json};

use crate::Workspace;

/// Largest question in bytes.
pub const MAX_INPUT: usize = 4 * 1024 * 1024;

/// Runs its first argument with bash, or with sh where there is no bash.
const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash -c \"$1\"; \
     else exec sh -c \"$1\"; fi";

/// Quotes a word for any shell that may get it: POSIX shells, and fish, where a backslash means
/// something between single quotes (fish-language(7)). Quotes and backslashes are between double
/// quotes, where all of them agree.
pub fn quoted(word: &str) -> String {
    let mut text = String::from("'");
    for letter in word.chars() {
        match letter {
            '\'' => text.push_str("'\"'\"'"),
            '\\' => text.push_str("'\"\\\\\"'"),
            letter => text.push(letter),
        }
    }
    text.push('\'');
    text
}

/// The command line that runs a command in the machine.
pub fn rewritten(command: &str, cwd: &Path, workspace: &Workspace, program: &str) -> String {
    let words = [program, "exec", "-w", &workspace.guest_folder(cwd), &workspace.vm, "--"];
    let words = words.into_iter().chain(["sh", "-c", SHELL, "sh", command]);
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// The answer to a question: the parameters of the tool with the command replaced.
///
/// # Errors
/// The question is not one about a command.
pub fn answer(question: &[u8], workspace: &Workspace, program: &str) -> Result<Value, ApiError> {
    let bad = |text: &str| ApiError::new(ErrorCode::BadRequest, text);
    let question: Value = serde_json::from_slice(question)
        .map_err(|error| bad("the hook's input is not JSON").caused_by(&error))?;
    let mut input = question.get("tool_input").cloned().unwrap_or(Value::Null);
    let command = match input.get("command") {
        Some(Value::String(command)) => command.clone(),
        // Codex's older shell tool: a program with arguments.
        Some(Value::Array(words)) => {
            let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
            let words = words.ok_or_else(|| bad("an argument of the command is not text"))?;
            words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
        }
        _ => {
            let tool = question.get("tool_name").and_then(Value::as_str).unwrap_or("?");
            let text =
                format!("the tool `{}` has no command that can run in a machine", excerpt(tool));
            return Err(bad(&text));
        }
    };
    let cwd = question.get("cwd").and_then(Value::as_str).unwrap_or_default();
    let line = rewritten(&command, Path::new(cwd), workspace, program);
    let replaced = match input.get("command") {
        Some(Value::Array(_)) => json!(["sh", "-c", line]),
        _ => json!(line),
    };
    if let Some(object) = input.as_object_mut() {
        object.insert("command".into(), replaced);
    }
    Ok(json!({
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "allow",
            "permissionDecisionReason": format!("runs in the machine `{}`", workspace.vm),
            "updatedInput": input,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace { host: "/home/u/app".into(), vm: "web".into(), guest: "/root/app".into() }
    }

    /// A question as Claude Code 2.1.332 sends it.
    const RECORDED: &str = r#"{"session_id":"6845e555-a191-4c07-80d7-dbbb0976095b",
        "transcript_path":"/home/u/.claude/projects/-home-u-app/6845e555.jsonl",
        "cwd":"/home/u/app/src","permission_mode":"default","effort":{"level":"medium"},
        "hook_event_name":"PreToolUse","tool_name":"Bash",
        "tool_input":{"command":"echo 'a b' | wc","description":"a test","timeout":5000},
        "tool_use_id":"toolu_1"}"#;

    #[test]
    fn a_command_is_replaced_and_other_parameters_stay() {
        let answer = answer(RECORDED.as_bytes(), &workspace(), "/usr/bin/banger").unwrap();
        let output = &answer["hookSpecificOutput"];
        assert_eq!(output["permissionDecision"], "allow");
        let input = &output["updatedInput"];
        assert_eq!((&input["description"], &input["timeout"]), (&json!("a test"), &json!(5000)));
        let command = input["command"].as_str().unwrap();
        let begin = "'/usr/bin/banger' 'exec' '-w' '/root/app/src' 'web' '--' 'sh' '-c' 'if ";
        assert!(command.starts_with(begin), "{command}");
        let end = r#"fi' 'sh' 'echo '"'"'a b'"'"' | wc'"#;
        assert!(command.ends_with(end), "{command}");
    }

    #[test]
    fn the_shell_passes_the_command_on_unchanged() {
        let commands = [
            "printf '%s\\n' \"$HOME\" 'it'\\''s' `echo x` $(echo y)\necho z",
            "",
            "'",
            "\\",
            // In fish, `\'` between single quotes does not end them.
            "echo \\'; echo fish; echo \\'",
            "a\\\\'b",
            "\\$x \"y\" !! *",
        ];
        // A program that prints its last argument.
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("it's a program");
        let text = "#!/bin/sh\nfor last; do :; done\nprintf '%s' \"$last\"\n";
        std::fs::write(&program, text).unwrap();
        let program = program.to_str().unwrap();
        for command in commands {
            let line = rewritten(command, Path::new("/"), &workspace(), program);
            let line = format!("chmod +x {}; {line}", quoted(program));
            for shell in ["sh", "bash", "zsh", "fish"] {
                let output = std::process::Command::new(shell).args(["-c", &line]).output();
                let printed = output.unwrap().stdout;
                assert_eq!(String::from_utf8_lossy(&printed), command, "{shell}: {line}");
            }
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for question in [
            "",
            "[]",
            "{}",
            r#"{"tool_name":"Monitor","tool_input":{}}"#,
            r#"{"tool_input":{"command":[1]}}"#,
        ] {
            assert!(answer(question.as_bytes(), &workspace(), "banger").is_err(), "{question}");
        }
    }

    #[test]
    fn an_array_of_arguments_stays_an_array() {
        let question = r#"{"tool_input":{"command":["ls","a b"]},"cwd":"/home/u/app"}"#;
        let answer = answer(question.as_bytes(), &workspace(), "banger").unwrap();
        let command = &answer["hookSpecificOutput"]["updatedInput"]["command"];
        assert_eq!((&command[0], &command[1]), (&json!("sh"), &json!("-c")));
        let line = command[2].as_str().unwrap();
        let end = quoted("'ls' 'a b'");
        assert!(line.ends_with(&format!(" {end}")), "{line}");
    }
}
