//! Completion of a command line in a shell: reads clap's command tree and decides what the word at
//! the cursor can be.
//!
//! The scripts in `packaging/completions` call `banger __complete` for each word. clap_complete's
//! own engine for this is not used: its scripts put names of files into the command line without
//! quoting them, it offers banger's options inside of a command for the guest, and the protocol
//! between its scripts and the program changes with its version. Here, names of files are left to
//! the shell, which quotes them, and every other value has characters of [`is_plain`] only.

pub mod names;

use clap::{Arg, ArgAction, Command, Subcommand, ValueHint};

use crate::commands::alias::Alias;

/// A value to offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub value: String,
    /// One line about it, for shells that show it.
    pub about: String,
}

/// What the word at the cursor can be.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// One of these words.
    Words(Vec<Candidate>),
    /// A name that the daemon knows.
    Names(Names),
    /// A file.
    Files,
    /// A folder.
    Folders,
    /// Nothing to offer, such as in a command for the guest.
    Nothing,
}

/// A kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// VMs.
    Vm,
    /// Files, or files of VMs as `VM:PATH`, where only the VM is completed.
    VmPath,
    /// Images.
    Image,
    /// Kernels.
    Kernel,
    /// Operations.
    Operation,
}

/// Names for one command.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// Kind of the names.
    pub kind: Kind,
    /// Name of the command, such as `start`, which decides the states that fit.
    pub verb: String,
    /// Names that stand in the command line already.
    pub given: Vec<String>,
}

/// The word at the cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// What it can be.
    pub offer: Offer,
    /// Its part that is not completed: `--image=` of `--image=deb`.
    pub before: String,
    /// The beginning of each value that fits.
    pub prefix: String,
}

/// Stages of `--wait`.
const STAGES: [(&str, &str); 3] = [
    ("agent", "the guest agent answers"),
    ("ready", "the guest is ready"),
    ("booted", "its init has booted"),
];

/// Conditions of `--filter`.
const FILTERS: [(&str, &str); 6] = [
    ("label=", "a label, as KEY or KEY=VALUE"),
    ("name=", "the name"),
    ("image=", "the image"),
    ("state=running", "it runs"),
    ("state=stopped", "it is stopped"),
    ("state=broken", "it is broken"),
];
/// Those of `vm prune`.
const PRUNE_FILTERS: [(&str, &str); 4] =
    [FILTERS[0], FILTERS[1], FILTERS[2], ("until=", "created before this time ago, such as 7d")];

/// Decides what the last word can be, after the words before it; none of them is `banger`.
/// `command` must have been built.
pub fn complete(command: &Command, words: &[String]) -> Completion {
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", words),
    };
    let mut line = Line::new(command);
    for word in before {
        line.pass(word);
    }
    line.complete(current)
}

/// Whether a word needs no quotes in bash, zsh and fish.
pub fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+=:/@,%".contains(c);
    !word.is_empty() && word.chars().all(plain)
}

/// The words before the cursor.
struct Line<'a> {
    top: &'a Command,
    command: &'a Command,
    /// Position of the next positional argument.
    position: usize,
    /// An option whose value comes next.
    option: Option<&'a Arg>,
    /// Whether `--` came.
    escaped: bool,
    /// Whether the words are those of a command for the guest.
    guest: bool,
    /// Whether the word continues the one before it behind a colon.
    colon: bool,
    options: Vec<&'a str>,
    values: Vec<String>,
}

impl<'a> Line<'a> {
    fn new(top: &'a Command) -> Self {
        let (options, values) = (Vec::new(), Vec::new());
        let (command, position, option) = (top, 0, None);
        let (escaped, guest, colon) = (false, false, false);
        Self { top, command, position, option, escaped, guest, colon, options, values }
    }

    fn pass(&mut self, word: &str) {
        if std::mem::take(&mut self.colon) {
            return;
        }
        if let Some(option) = self.option.take() {
            if word == "=" {
                // bash splits `--image=debian` into three words.
                self.option = Some(option);
                return;
            }
            if !(is_optional(option) && word.starts_with('-')) {
                return;
            }
        }
        if self.guest {
            return;
        }
        if self.escaped {
            return self.pass_value(word);
        }
        if word == ":" {
            // bash splits `web:/etc` into three words.
            self.colon = true;
        } else if word == "--" {
            self.escaped = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            if let Some(option) = self.long(name) {
                self.given(option, value.is_some());
            }
        } else if word.len() > 1 && word.starts_with('-') {
            self.pass_shorts(word.get(1..).unwrap_or_default());
        } else if let Some(command) =
            self.command.find_subcommand(word).filter(|_| self.position == 0)
        {
            self.command = command;
        } else {
            self.pass_value(word);
        }
    }

    fn pass_shorts(&mut self, shorts: &str) {
        for (at, short) in shorts.char_indices() {
            let found = self.command.get_arguments().find(|a| a.get_short() == Some(short));
            let Some(option) = found else { continue };
            let last = at + short.len_utf8() == shorts.len();
            self.given(option, !last);
            if takes_value(option) {
                return;
            }
        }
    }

    fn given(&mut self, option: &'a Arg, has_value: bool) {
        self.options.push(option.get_id().as_str());
        if takes_value(option) && !has_value {
            self.option = Some(option);
        }
    }

    fn pass_value(&mut self, word: &str) {
        let argument = self.argument();
        self.guest = argument.is_some_and(is_for_the_guest);
        self.values.push(word.to_owned());
        if !argument.is_some_and(is_repeated) {
            self.position += 1;
        }
    }

    /// The next positional argument.
    fn argument(&self) -> Option<&'a Arg> {
        let mut arguments = self.command.get_positionals();
        if self.escaped
            && let Some(last) = self.command.get_positionals().find(|a| a.is_last_set())
        {
            return Some(last);
        }
        arguments.nth(self.position).filter(|argument| self.escaped || !argument.is_last_set())
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|a| a.get_long() == Some(name))
    }

    fn complete(&self, current: &str) -> Completion {
        let of = |offer, before: &str, prefix: &str| {
            let (before, prefix) = (before.to_owned(), prefix.to_owned());
            Completion { offer, before, prefix }
        };
        let is_option = current.starts_with('-') && !self.escaped;
        match self.option {
            Some(option) if !(is_optional(option) && is_option) => {
                return of(self.value(option), "", current);
            }
            _ => {}
        }
        if self.guest || self.colon {
            return of(Offer::Nothing, "", current);
        }
        if is_option {
            let inline = current.strip_prefix("--").and_then(|long| long.split_once('='));
            return match inline {
                Some((name, value)) => {
                    let offer = self.long(name).filter(|option| takes_value(option));
                    let offer = offer.map_or(Offer::Nothing, |option| self.value(option));
                    of(offer, &format!("--{name}="), value)
                }
                None => of(Offer::Words(self.options(current)), "", current),
            };
        }
        if self.position == 0 && !self.escaped && self.command.has_subcommands() {
            return of(Offer::Words(self.commands(current)), "", current);
        }
        let offer = match self.argument() {
            Some(argument) if !is_for_the_guest(argument) => self.value(argument),
            _ => Offer::Nothing,
        };
        of(offer, "", current)
    }

    /// What the value of an argument can be.
    fn value(&self, argument: &Arg) -> Offer {
        let possible = argument.get_possible_values();
        if !possible.is_empty() {
            let shown = possible.iter().filter(|value| !value.is_hide_set());
            let words = shown.map(|value| Candidate {
                value: value.get_name().to_owned(),
                about: value.get_help().map(first_line).unwrap_or_default(),
            });
            return Offer::Words(words.collect());
        }
        let words = match (argument.get_id().as_str(), self.command.get_name()) {
            ("wait", _) => &STAGES[..],
            ("filter", "prune") => &PRUNE_FILTERS,
            ("filter", _) => &FILTERS,
            _ => &[],
        };
        if !words.is_empty() {
            let word = |(value, about): &(&str, &str)| Candidate {
                value: (*value).to_owned(),
                about: (*about).to_owned(),
            };
            return Offer::Words(words.iter().map(word).collect());
        }
        if let Some(kind) = self.kind(argument) {
            // Values of other arguments may be the same words.
            let given = if is_repeated(argument) { self.values.clone() } else { Vec::new() };
            return Offer::Names(Names { kind, verb: self.command.get_name().to_owned(), given });
        }
        match argument.get_value_hint() {
            ValueHint::AnyPath | ValueHint::FilePath | ValueHint::ExecutablePath => Offer::Files,
            ValueHint::DirPath => Offer::Folders,
            _ => Offer::Nothing,
        }
    }

    /// The kind of name that an argument expects.
    fn kind(&self, argument: &Arg) -> Option<Kind> {
        // A name that is removed; the other names of images are new ones.
        if self.command.get_name() == "untag" && argument.get_id() == "name" {
            return Some(Kind::Image);
        }
        let shown = argument.get_value_names().and_then(<[_]>::first).map(|name| name.as_str());
        match shown.unwrap_or_default() {
            "VM" => Some(Kind::Vm),
            "IMAGE" => Some(Kind::Image),
            "KERNEL" => Some(Kind::Kernel),
            "SRC" | "DST" => Some(Kind::VmPath),
            "OPERATION" => Some(Kind::Operation),
            _ => None,
        }
    }

    fn options(&self, current: &str) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for option in self.command.get_arguments().filter(|a| !a.is_positional()) {
            let repeats = matches!(option.get_action(), ArgAction::Append | ArgAction::Count);
            let given = self.options.contains(&option.get_id().as_str());
            if option.is_hide_set() || (given && !repeats) {
                continue;
            }
            let about = option.get_help().map(first_line).unwrap_or_default();
            let long = option.get_long().map(|long| format!("--{long}"));
            let short = option.get_short().map(|short| format!("-{short}"));
            let short = short.filter(|short| long.is_none() || short == current);
            let values = long.into_iter().chain(short);
            candidates.extend(values.map(|value| Candidate { value, about: about.clone() }));
        }
        candidates
    }

    fn commands(&self, current: &str) -> Vec<Candidate> {
        let about = |command: &Command| command.get_about().map(first_line).unwrap_or_default();
        let visible = self.command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut candidates: Vec<Candidate> = visible
            .map(|command| Candidate {
                value: command.get_name().to_owned(),
                about: about(command),
            })
            .collect();
        if std::ptr::eq(self.command, self.top) && !current.is_empty() {
            // Short forms, which the help lists in one paragraph.
            let short = Alias::augment_subcommands(Command::new("short"));
            candidates.extend(short.get_subcommands().map(|command| Candidate {
                value: command.get_name().to_owned(),
                about: about(command),
            }));
        }
        if !candidates.iter().any(|candidate| candidate.value.starts_with(current)) {
            candidates.extend(self.command.get_subcommands().flat_map(|command| {
                command
                    .get_visible_aliases()
                    .map(move |alias| Candidate { value: alias.to_owned(), about: about(command) })
            }));
        }
        candidates
    }
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn is_optional(option: &Arg) -> bool {
    option.get_num_args().is_some_and(|count| count.min_values() == 0)
}

fn is_repeated(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|count| count.max_values() > 1)
        || (argument.is_positional() && matches!(argument.get_action(), ArgAction::Append))
}

/// Whether an argument is a command that runs in a guest.
fn is_for_the_guest(argument: &Arg) -> bool {
    argument.is_trailing_var_arg_set() || argument.is_last_set()
}

fn first_line(text: &clap::builder::StyledStr) -> String {
    let text = text.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    fn at(line: &str) -> Completion {
        let mut command = Cli::command();
        command.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        complete(&command, &words)
    }

    fn words(line: &str) -> Vec<String> {
        match at(line) {
            Completion { offer: Offer::Words(words), prefix, .. } => {
                let fits = words.into_iter().map(|candidate| candidate.value);
                fits.filter(|word| word.starts_with(&prefix)).collect()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    fn names(line: &str) -> (Kind, String) {
        match at(line).offer {
            Offer::Names(names) => (names.kind, names.verb),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_and_options_are_offered_where_they_are_allowed() {
        assert_eq!(words("ki"), ["kill"]);
        assert_eq!(words("vm cr"), ["create"]);
        assert_eq!(words("vm insp"), ["inspect"], "an alias where no name fits");
        assert_eq!(words("daemon sta"), ["status", "start"]);
        assert!(!words("").iter().any(|word| word.starts_with('_') || word == "ssh-proxy"));
        assert_eq!(words("vm create --na"), ["--name", "--nat"]);
        assert_eq!(words("vm create --nat --na"), ["--name"], "given already");
        assert_eq!(words("exec -e A=1 --en"), ["--env", "--env-file"], "repeatable");
        assert_eq!(words("vm logs web -n 5 --ta"), Vec::<String>::new());
        assert!(words("vm logs web -").contains(&"--follow".to_owned()));
        assert!(words("-q vm list --").contains(&"--running".to_owned()));
        assert_eq!(words("run --nat "), ["on", "off"]);
        assert_eq!(words("run --nat=o"), ["on", "off"]);
        assert_eq!(words("run --nat = o"), ["on", "off"], "as bash splits it");
        assert_eq!(words("run --nat --vc"), ["--vcpus"], "without its value");
        assert_eq!(words("vm start --wait "), ["agent", "ready", "booted"]);
        let states = ["state=running", "state=stopped", "state=broken"];
        assert_eq!(words("ps --filter st"), states);
        assert_eq!(words("vm list --filter=l"), ["label="]);
        assert_eq!(words("vm prune --filter u"), ["until="]);
        assert_eq!(words("help vm crea"), ["create"]);
    }

    #[test]
    fn names_are_those_of_the_argument() {
        let vm = |verb: &str| (Kind::Vm, verb.to_owned());
        assert_eq!(names("vm stop "), vm("stop"));
        assert_eq!(names("stop web "), vm("stop"));
        assert_eq!(names("vm rm -f "), vm("delete"));
        assert_eq!(names("rm "), vm("rm"));
        assert_eq!(names("stop -t 5 web d"), vm("stop"));
        assert_eq!(names("stop -- d"), vm("stop"));
        assert_eq!(names("exec "), vm("exec"));
        assert_eq!(names("exec -it -u root "), vm("exec"));
        assert_eq!(names("ssh -L 1:2:3 "), vm("ssh"));
        assert_eq!(names("daemon logs --vm "), vm("logs"));
        assert_eq!(names("image commit "), vm("commit"));
        assert_eq!(names("run --image="), (Kind::Image, "run".to_owned()));
        assert_eq!(names("run --image = "), (Kind::Image, "run".to_owned()));
        assert_eq!(names("create --kernel "), (Kind::Kernel, "create".to_owned()));
        assert_eq!(names("image tag "), (Kind::Image, "tag".to_owned()));
        assert_eq!(names("image untag "), (Kind::Image, "untag".to_owned()));
        assert_eq!(names("cp web:/etc/hosts w"), (Kind::VmPath, "cp".to_owned()));
        assert_eq!(names("cp web : /etc/hosts w"), (Kind::VmPath, "cp".to_owned()), "as in bash");
        assert_eq!(names("op cancel "), (Kind::Operation, "cancel".to_owned()));
        let given = |line| match at(line).offer {
            Offer::Names(names) => names.given,
            other => panic!("{other:?}"),
        };
        assert_eq!(given("stop web db "), ["web", "db"]);
        assert_eq!(at("run --image=de").before, "--image=");
    }

    #[test]
    fn other_values_are_files_or_nothing() {
        for line in ["image import ", "exec --env-file ", "run --env-file=x"] {
            assert_eq!(at(line).offer, Offer::Files, "{line}");
        }
        for line in [
            "exec web ",
            "exec web ca",
            "exec web -- ",
            "exec web ls -",
            "exec web ls --js",
            "run ",
            "run --rm uname -",
            "run -- ",
            "ssh web ",
            "ssh web -- ",
            "vm create --name ",
            "vm create -p ",
            "exec -e ",
            "exec -w ",
            "image tag debian ",
            "vm show web ",
            "vm list ",
            "stop --timeout ",
            "run --nope=",
            "cp web : /et",
        ] {
            assert_eq!(at(line).offer, Offer::Nothing, "{line}");
        }
    }

    #[test]
    fn every_argument_that_names_a_vm_is_completed() {
        fn check(command: &Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            command.get_subcommands().for_each(|sub| check(sub, &path));
            for argument in command.get_arguments() {
                if matches!(argument.get_id().as_str(), "vm" | "vms") {
                    let line = Line::new(command);
                    assert_eq!(line.kind(argument), Some(Kind::Vm), "{path}");
                }
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "");
    }

    #[test]
    fn words_that_a_shell_would_change_are_not_plain() {
        assert!(is_plain("web-1") && is_plain("--image=debian:12"));
        for word in ["", "a b", "a;b", "$(x)", "a\tb", "a\nb", "'a'", "a*", "~a", "ü", "a\\b"] {
            assert!(!is_plain(word), "{word:?}");
        }
    }
}
