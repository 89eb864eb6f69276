//! The program of a machine: from a request and the image's configuration, as container engines
//! combine them. Decided once, when the VM is created.

use banger_api::hint::ImageAdvice;
use banger_api::images::ImageConfig;
use banger_api::program::{ProgramRequest, ProgramView, booted_init};
use banger_api::{ApiError, ByteString, ErrorCode};
use serde::{Deserialize, Serialize};

use crate::record::VmRecord;

/// SIGTERM.
const DEFAULT_STOP_SIGNAL: u8 = 15;
/// The first real-time signal as C libraries count them, and the last.
const REALTIME: (u8, u8) = (34, 64);

/// Names of signals by number, from 1 (signal(7), x86-64 and aarch64).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// What an image starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageStart {
    /// Its init, if it has one.
    pub init: Option<String>,
    /// How a container of it runs, if it is a container image.
    pub config: Option<ImageConfig>,
}

/// The program of a machine, permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Program and arguments; at least one.
    pub argv: Vec<ByteString>,
    /// Its environment, `NAME=VALUE`; later ones replace earlier ones.
    #[serde(default)]
    pub env: Vec<ByteString>,
    /// Working folder.
    #[serde(default)]
    pub cwd: Option<ByteString>,
    /// User, and group after a colon.
    #[serde(default)]
    pub user: Option<String>,
    /// Signal that stops it.
    pub stop_signal: u8,
    /// Whether it waits for a client in the first run.
    #[serde(default)]
    pub attach: bool,
}

/// The program of a new machine; none where the image's init runs, or only the agent.
///
/// # Errors
/// An entry point for an image with an init.
pub fn of(
    request: &ProgramRequest,
    image: &ImageStart,
    image_name: &str,
) -> Result<Option<Program>, ApiError> {
    let config = image.config.as_ref();
    let init = booted_init(image.init.as_deref(), config, request.entrypoint.is_some());
    match (init, &request.entrypoint) {
        (Some(init), Some(_)) => {
            let text = format!("the image `{image_name}` has an init ({init}), not an entry point");
            return Err(
                ApiError::new(ErrorCode::BadRequest, text).with_hint(ImageAdvice::RunAsCommand)
            );
        }
        (Some(_), None) => return Ok(None),
        (None, _) => {}
    }
    if config.is_none() && request.entrypoint.is_none() {
        return Ok(None);
    }
    let config = config.cloned().unwrap_or_default();
    let words =
        |words: &[String]| words.iter().map(|word| ByteString::from(word.as_str())).collect();
    let (mut argv, default_command): (Vec<ByteString>, Vec<ByteString>) = match &request.entrypoint
    {
        Some(program) if program.as_bytes().is_empty() => Default::default(),
        Some(program) => (vec![program.clone()], Vec::new()),
        None if request.replace_entrypoint => (Vec::new(), words(&config.cmd)),
        None => (words(&config.entrypoint), words(&config.cmd)),
    };
    argv.extend(if request.command.is_empty() { default_command } else { request.command.clone() });
    if argv.is_empty() {
        return Ok(None);
    }
    let mut env: Vec<ByteString> = words(&config.env);
    env.extend(request.env.iter().cloned());
    let folder = || config.working_dir.clone().filter(|folder| !folder.is_empty());
    Ok(Some(Program {
        argv,
        env,
        cwd: request.cwd.clone().or_else(|| folder().map(ByteString::from)),
        user: request.user.clone().or(config.user).filter(|user| !user.is_empty()),
        stop_signal: config.stop_signal.as_deref().and_then(signal).unwrap_or(DEFAULT_STOP_SIGNAL),
        attach: request.attach,
    }))
}

/// A signal by name or number: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
fn signal(text: &str) -> Option<u8> {
    let (first, last) = REALTIME;
    if let Ok(number) = text.parse::<u8>() {
        return Some(number).filter(|number| (1..=last).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(place) = SIGNALS.iter().position(|known| *known == name) {
        return u8::try_from(place + 1).ok();
    }
    let number = match name.strip_prefix("RTMIN") {
        Some("") => Some(first),
        Some(more) => more.strip_prefix('+')?.parse::<u8>().ok()?.checked_add(first),
        None => match name.strip_prefix("RTMAX")? {
            "" => Some(last),
            less => last.checked_sub(less.strip_prefix('-')?.parse::<u8>().ok()?),
        },
    };
    number.filter(|number| (first..=last).contains(number))
}

/// The view of the program of a VM.
pub fn view(record: &VmRecord) -> Option<ProgramView> {
    record.plan.program.as_ref().map(|program| ProgramView {
        argv: program.argv.clone(),
        cwd: program.cwd.clone(),
        user: program.user.clone(),
        stop_signal: program.stop_signal,
        exit_code: record.exit_code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ImageConfig {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        ImageConfig {
            entrypoint: words("/app serve"),
            cmd: words("--port 80"),
            env: words("PATH=/app A=1"),
            user: Some("web:web".into()),
            working_dir: Some("/srv".into()),
            stop_signal: Some("SIGINT".into()),
            ..ImageConfig::default()
        }
    }

    fn image(init: Option<&str>, config: Option<ImageConfig>) -> ImageStart {
        ImageStart { init: init.map(str::to_owned), config }
    }

    fn argv(request: &ProgramRequest) -> Option<String> {
        let program = of(request, &image(None, Some(config())), "app").unwrap()?;
        Some(program.argv.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn command_and_entry_point_are_replaced_as_in_docker() {
        let request = |entrypoint: Option<&str>, command: &str| ProgramRequest {
            entrypoint: entrypoint.map(Into::into),
            command: command.split_terminator(' ').map(ByteString::from).collect(),
            ..ProgramRequest::default()
        };
        for (entrypoint, command, expected) in [
            (None, "", Some("/app serve --port 80")),
            (None, "--help", Some("/app serve --help")),
            (Some("sh"), "", Some("sh")),
            (Some("sh"), "-c true", Some("sh -c true")),
            (Some(""), "true", Some("true")),
            (Some(""), "", None),
        ] {
            assert_eq!(argv(&request(entrypoint, command)).as_deref(), expected, "{entrypoint:?}");
        }
        let whole = |command| ProgramRequest { replace_entrypoint: true, ..request(None, command) };
        assert_eq!(argv(&whole("claude -p x")).as_deref(), Some("claude -p x"));
    }

    #[test]
    fn the_rest_is_the_images_unless_it_is_requested() {
        let image = image(None, Some(config()));
        let program = of(&ProgramRequest::default(), &image, "app").unwrap().unwrap();
        assert_eq!(program.env, ["PATH=/app", "A=1"].map(ByteString::from));
        assert_eq!((program.cwd, program.user), (Some("/srv".into()), Some("web:web".into())));
        assert_eq!(program.stop_signal, 2);
        let request = ProgramRequest {
            env: vec!["A=2".into()],
            cwd: Some("/".into()),
            user: Some("0".into()),
            attach: true,
            ..ProgramRequest::default()
        };
        let program = of(&request, &image, "app").unwrap().unwrap();
        assert_eq!(program.env.last(), Some(&"A=2".into()));
        assert_eq!((program.cwd, program.user), (Some("/".into()), Some("0".into())));
        assert!(program.attach);
    }

    #[test]
    fn an_image_with_an_init_boots_it() {
        let (plain, with_program) = (
            ProgramRequest::default(),
            ProgramRequest { entrypoint: Some("sh".into()), ..ProgramRequest::default() },
        );
        let systemd = image(Some("systemd"), Some(config()));
        assert_eq!(of(&plain, &systemd, "x"), Ok(None));
        let command = ProgramRequest { replace_entrypoint: true, ..ProgramRequest::default() };
        assert_eq!(of(&command, &systemd, "x"), Ok(None));
        let error = of(&with_program, &systemd, "x").unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest);
        // Not a container image: the agent alone.
        assert_eq!(of(&plain, &image(None, None), "x"), Ok(None));
        assert!(of(&with_program, &image(None, None), "x").unwrap().is_some());
        // Based on Alpine without OpenRC.
        assert!(of(&plain, &image(Some("busybox"), Some(config())), "x").unwrap().is_some());
        let unnamed = Some(ImageConfig::default());
        assert_eq!(of(&plain, &image(Some("busybox"), unnamed.clone()), "x"), Ok(None));
        assert_eq!(of(&plain, &image(None, unnamed), "x"), Ok(None));
        assert_eq!(of(&plain, &image(Some("busybox"), None), "x"), Ok(None));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGWINCH", Some(28)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMAX", Some(64)),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
        for text in ["", "0", "65", "SIGNONE", "RTMIN+31", "RTMIN-1", "RTMAX-31", "RTMIN+x"] {
            assert_eq!(signal(text), None, "{text}");
        }
    }
}
