//! Hints in the words of the command line.

use super::{Hint, ImageAdvice, KernelAdvice, Kind, PortAdvice, SetupAdvice, VmLog};
use crate::size::human_size;
use crate::vm::VmAction;

/// Hints in the words of the command line; none where there are none.
pub fn words(hints: &[Hint]) -> Option<String> {
    use Hint::{AskVm, ChooseAnotherName, ReplaceName, UseFolder};
    use VmAction::{Delete, Repair, Stop};
    // What belongs together is one phrase.
    let phrase = match hints {
        [] => return None,
        [AskVm { action: Stop { .. }, .. }, AskVm { vm, action: Delete { force: true } }] => {
            format!("stop it first, or use `banger vm delete -f {vm}`")
        }
        [AskVm { vm, action: Repair {} }, AskVm { action: Delete { force: true }, .. }] => {
            format!("`banger vm repair {vm}` tries again; `banger vm delete -f {vm}` removes it")
        }
        [ChooseAnotherName, AskVm { vm, action: Delete { force } }] => {
            let force = if *force { "-f " } else { "" };
            format!("choose another name, or `banger vm delete {force}{vm}` first")
        }
        [ChooseAnotherName, ReplaceName] => {
            "choose another name, or move this one with `--replace`".to_owned()
        }
        [first, UseFolder { variable }] => {
            format!("{}, or set `{variable}` to another folder", first.words())
        }
        hints => hints.iter().map(Hint::words).collect::<Vec<_>>().join("; "),
    };
    Some(phrase)
}

impl Hint {
    /// The hint in the words of the command line: one line, no full stop.
    pub fn words(&self) -> String {
        match self {
            Self::AskVm { vm, action } => ask_words(vm, action),
            Self::ShowVm { vm } => format!("`banger vm show {vm}` says why"),
            Self::OpenShell { vm } => format!("`banger shell {vm}` looks into it"),
            Self::CheckVm { vm } => format!("`banger vm health {vm}` checks the agent again"),
            Self::ShowVmLog { vm, log } => log_words(vm, *log),
            Self::UpdateAgent { vm } => {
                format!("`banger vm restart {vm}` boots it with the present agent")
            }
            Self::EnlargeRootDisk { least_bytes } => {
                format!("it needs at least {}", human_size(*least_bytes))
            }
            Self::List { what: Kind::Vm } => "`banger vm list` lists all VMs".into(),
            Self::List { what } => format!("`banger {0} list` lists all {0}s", what.as_str()),
            Self::SimilarNames { names } => format!("did you mean {}?", quoted(names)),
            Self::Delete { what, name } => {
                format!("`banger {} delete {name}` deletes it", what.as_str())
            }
            Self::DeleteUsers => "delete these VMs first".into(),
            Self::TagImage { image } => {
                format!("`banger image tag {image} OTHER` gives it another name")
            }
            Self::Pull { what, recipe } => {
                format!("`banger {} pull {recipe}` fetches it", what.as_str())
            }
            Self::ChooseAnotherName => "choose another name".into(),
            Self::ReplaceName => "move this one with `--replace`".into(),
            Self::NarrowReference => "use the name or more digits of the id".into(),
            Self::FollowNameRule { what } => name_rule(*what).into(),
            Self::Retry => "run the command again".into(),
            Self::WaitForRequests => "wait until some of them have finished".into(),
            Self::WaitForOperation { operation } => {
                format!("`banger operation show {operation}` shows whether it has finished")
            }
            Self::CheckEffect => "`banger vm list` shows whether the request took effect".into(),
            Self::UseStdin => "pass large data on standard input (`-i`) or in a file".into(),
            Self::ReadApi { route } => format!("`GET {route}` describes all routes"),
            Self::UseOtherBuild => "use the version of banger that wrote it".into(),
            Self::CheckHost => "`banger doctor` says what is missing and how to get it".into(),
            Self::ShowDaemon => "`banger daemon status` shows it".into(),
            Self::StopDaemon => "`banger daemon stop` ends it".into(),
            Self::ReplaceDaemon => REPLACE_DAEMON.into(),
            Self::ShowDaemonLog => "`banger daemon logs` shows its log".into(),
            Self::ReadFile { path } => format!("its log is `{path}`"),
            Self::ReadKeptLogs { vm, path } => format!("the logs of `{vm}` are kept in `{path}`"),
            Self::InstallPackages { packages } => format!("apt install {}", packages.join(" ")),
            Self::InstallHelper { program } => helper_words(program.as_deref()),
            Self::RunOnHost { argv, as_root } => run_words(argv, *as_root),
            Self::FreeSpace { path } => space_words(path.as_deref()),
            Self::Prune { frees_bytes, all_frees_bytes } => {
                prune_words(*frees_bytes, *all_frees_bytes)
            }
            Self::MakeWritable { path: None } => "make it writable for your user".into(),
            Self::MakeWritable { path: Some(path) } => {
                format!("make `{path}` and its folder writable")
            }
            Self::UseFolder { variable } => format!("set `{variable}` to another folder"),
            Self::Configure { key, value } => configure_words(key, value.as_deref()),
            Self::Image { advice } => image_words(advice),
            Self::Kernel { advice } => kernel_words(advice),
            Self::Port { advice } => port_words(*advice).into(),
            Self::Setup { advice } => setup_words(advice),
            Self::Host { advice } => advice.words(),
            Self::Text { text } => text.clone(),
        }
    }
}

const REPLACE_DAEMON: &str =
    "`banger daemon stop` ends it; the next command starts the one installed here";

fn log_words(vm: &str, log: VmLog) -> String {
    match log {
        VmLog::Console => format!("`banger vm logs {vm} --console` shows what the guest printed"),
        VmLog::Vmm => format!("`banger vm logs {vm} --vmm` shows what its VMM and companion did"),
    }
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(" or ")
}

fn name_rule(what: Kind) -> &'static str {
    match what {
        Kind::Vm => "a VM name is a DNS label, such as web-1",
        Kind::Image | Kind::Kernel => {
            "use a-z, 0-9, dots, underscores and hyphens, beginning with a letter or digit"
        }
    }
}

fn helper_words(program: Option<&str>) -> String {
    match program {
        Some(program) => format!("sudo {program} install"),
        None => "`sudo banger-root install`, once; the program is beside banger and bangerd".into(),
    }
}

fn run_words(argv: &[String], as_root: bool) -> String {
    format!("{}{}", if as_root { "sudo " } else { "" }, argv.join(" "))
}

fn space_words(path: Option<&str>) -> String {
    match path {
        Some(path) => format!("free some space on the disk that holds `{path}`"),
        None => {
            "free some disk space; `banger image list` and `banger vm list` show the sizes".into()
        }
    }
}

fn prune_words(frees_bytes: u64, all_frees_bytes: u64) -> String {
    let (frees, all) = (human_size(frees_bytes), human_size(all_frees_bytes));
    match (frees_bytes, all_frees_bytes) {
        (0, 0) => "`banger system prune` would free nothing".into(),
        (0, _) => format!("`banger system prune --all` would free {all}"),
        (one, other) if one >= other => format!("`banger system prune` would free {frees}"),
        _ => format!("`banger system prune` would free {frees}, with `--all` {all}"),
    }
}

fn configure_words(key: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("`{key} = \"{value}\"` in config.toml"),
        None => format!("change `{key}` in config.toml"),
    }
}

fn image_words(advice: &ImageAdvice) -> String {
    use ImageAdvice as A;
    match advice {
        A::PackFolder { path } => {
            format!("pack the contents of the folder: `tar -C {path} -cf rootfs.tar .`")
        }
        A::ImportSystem { recipe } => format!(
            "without its registry, import a root file system: `banger image import --name \
             {recipe} ROOTFS.tar.gz`, such as the distribution offers for download"
        ),
        A::LogIn { host } => {
            format!("log in: `docker login {host}`, or `skopeo login` with `--authfile`")
        }
        A::RestoreImage { vm } => format!(
            "importing the same archive again restores it, as do its files from a backup; \
             without it `{vm}` cannot start"
        ),
        A::RestoreKernel { vm } => format!(
            "`banger kernel pull` fetches it again while it is Debian's newest; its files from a \
             backup restore it too; without it `{vm}` cannot start"
        ),
        other => fixed_image_words(other).into(),
    }
}

/// The advice that names nothing.
fn fixed_image_words(advice: &ImageAdvice) -> &'static str {
    use ImageAdvice as A;
    match advice {
        A::PackRootFs => {
            "give the tar archive of a whole root file system, such as mmdebstrap \
                          makes"
        }
        A::RunAsCommand => {
            "give the program as a command after `--`, which runs it beside the image's init"
        }
        A::PackMounted => {
            "mount it and pack its files: `mount -o loop,ro FILE /mnt` and `tar -C /mnt --xattrs \
             -cf rootfs.tar .`"
        }
        A::PackDisk => {
            "mount its root partition and pack the files: `tar -C /mnt --xattrs -cf rootfs.tar .`; \
             only the ext4 file system of a disk can be imported, if there is no other"
        }
        A::ConvertDisk => {
            "convert it: `qemu-img convert -O qcow2 FILE disk.qcow2`, and import that"
        }
        A::FlattenDisk => {
            "make a complete disk of it: `qemu-img convert -O qcow2 FILE disk.qcow2`, and import \
             that"
        }
        A::PackCpio => "unpack it by cpio(1) and pack its files: `tar -C FOLDER -cf rootfs.tar .`",
        A::Unpack => "unpack it; if a root file system is in it, import its tar archive",
        A::InstallPackage => "install it in a VM: `banger run`, then the package manager",
        A::DownloadAgain => "the download failed, or the address leads to a page: fetch it again",
        A::UnpackOci => {
            "unpack it: `skopeo copy oci-archive:FILE docker-daemon:x:y` and `docker export`, or \
             `umoci unpack`"
        }
        A::ExportContainer => {
            "export a container's root file system instead: `docker export $(docker create IMAGE) \
             >rootfs.tar`"
        }
        A::JoinVolumes => "unpack all volumes by tar -M and pack them as one archive",
        A::CheckReference => "check its name and tag; some registries hide images without a login",
        A::CheckNetwork => {
            "check the network; `[proxy]` and `[ca]` are in docs/corporate-network.md"
        }
        A::CheckSignature => "get it from its publisher again, or correct `[trust]`: docs/trust.md",
        A::CopyOneImage => {
            "copy one of them: `skopeo copy oci:PATH:TAG oci:NEW`, or `docker save` only one"
        }
        A::CopyAgain => {
            "copy it again; of a multi-volume archive, unpack all volumes and pack them as one"
        }
        A::BytesChanged => {
            "run the command again; if it happens again, the server or a proxy changes the bytes"
        }
        A::CheckPath => "check the path: the daemon opens it on this host",
        A::AwaitWriter => "try again when it is finished",
        A::CopyIn => "`banger image import` copies it into an image of its own",
        A::Import => "`banger image import` makes one from an archive",
        A::FetchAgain => "fetch it again",
        A::CheckSources => "check the network and the package sources",
        A::AddDebianSources => "add Debian's own package sources to this host, or use Debian",
        A::PackFolder { .. }
        | A::ImportSystem { .. }
        | A::LogIn { .. }
        | A::RestoreImage { .. }
        | A::RestoreKernel { .. } => "",
    }
}

fn kernel_words(advice: &KernelAdvice) -> String {
    match advice {
        KernelAdvice::SupportedFiles => {
            "a kernel is imported from a bzImage (`vmlinuz-…`), a vmlinux or a Debian package"
                .into()
        }
        KernelAdvice::LeaveOutModules => "leave out `--modules`".into(),
        KernelAdvice::GiveModules { release } => format!(
            "guests need these drivers, built in or as modules: name the folder of the modules \
             with `--modules`, such as `/lib/modules/{release}`"
        ),
        KernelAdvice::Build { recipe } => format!("`banger kernel build {recipe}` builds it"),
        KernelAdvice::InstallKernel => "leave out `--kernel image`, or build an image with the \
             distribution's kernel: `banger image build --package linux-image-amd64` for Debian"
            .into(),
        KernelAdvice::UseOtherThanOwn => {
            "leave out `--kernel image`: banger's default kernel boots any image".into()
        }
    }
}

fn port_words(advice: PortAdvice) -> &'static str {
    match advice {
        PortAdvice::FreePort => {
            "`ss -ltnp` shows the program on that port: end it, or publish another port"
        }
        PortAdvice::UseUnprivileged => "publish a port from 1024 on",
        PortAdvice::UseOwnAddress => "`ip address` shows the addresses of this host",
        PortAdvice::UseIpv4 => "publish it on an IPv4 address, or use the `bridge` network",
    }
}

fn setup_words(advice: &SetupAdvice) -> String {
    use SetupAdvice as A;
    match advice {
        A::InstallCompanion => "`scripts/setup.sh run` in banger's source folder builds it; or \
             put the program beside bangerd"
            .into(),
        A::Reinstall { searched } => {
            format!("install banger again; searched {}", searched.join(" and "))
        }
        A::TurnNatOff => "use `--nat off` for guests you do not trust".into(),
        A::AddSubordinateIds { user } => format!(
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}, with a \
             range that no other user has",
            user.as_deref().unwrap_or("\"$USER\"")
        ),
        A::RaiseFileLimit { least } => format!(
            "raise the hard limit of the shell or service that starts bangerd, to {least} or \
             more: `ulimit -Hn`, `LimitNOFILE=` of systemd, /etc/security/limits.conf"
        ),
        A::FreeDnsPort { port } => format!(
            "`ss -lntup sport = :{port}` shows the process on port {port}, perhaps another user's \
             daemon: end it, or take another port"
        ),
        A::UseAddresses => "names of this daemon's VMs resolve once the other daemon has no VM; \
             until then use their addresses: banger vm list"
            .into(),
        A::UseNetworkProxy => "VMs on the bridge cannot reach it: use a proxy that listens on an \
             address of the network; VMs on QEMU's own network get its address as they see it"
            .into(),
        A::CorrectCertificates => "correct the file, or `ca.files` in the configuration".into(),
        A::ReplaceCertificates => {
            "replace these certificates, and check the clock of this host: date".into()
        }
        A::SetForHelper { key } => helper_setting(key),
        A::RestoreDatabase { vm, folder, processes } => {
            restore_database(vm, folder.as_deref(), processes)
        }
        A::RemoveLeftovers => "`banger doctor --fix` removes them".into(),
        A::RemoveForeign { path } => format!("move `{path}` elsewhere: banger did not create it"),
        A::ReplaceUid { process } => format!(
            "delete the VM and create it again, which gives it another uid; or end process \
             {process}"
        ),
        A::EnableUnit => {
            "`systemctl --user enable bangerd` and `loginctl enable-linger` start the \
             daemon with the host"
                .into()
        }
        A::StartAtBoot => {
            "have the host run `banger daemon start` as this user when it boots".into()
        }
        A::CorrectConfig => "correct or remove the key: every key is optional".into(),
        A::UseAbsolutePath { variable } => {
            format!("set `{variable}` to a path that begins with a slash, or unset it")
        }
        A::MoveAside { path } => format!(
            "move `{path}` aside to begin anew; the disks of its VMs stay where they are, and \
             `banger doctor` finds them"
        ),
        A::RemoveFile { path } => format!("remove `{path}`: it is made again when needed"),
        A::RestoreFile { path } => format!("restore `{path}` from a backup"),
    }
}

fn helper_setting(key: &str) -> String {
    match key {
        "network.subnet" => {
            "set it for the helper: sudo banger-root install --subnet NETWORK".into()
        }
        "firecracker_bin" | "jailer_bin" => "the helper uses the programs in /usr/local/bin".into(),
        key => format!("remove `{key}`: it applies only if the daemon runs as root"),
    }
}

fn restore_database(vm: &str, folder: Option<&str>, processes: &[u32]) -> String {
    let pids: Vec<String> = processes.iter().map(u32::to_string).collect();
    let kill = (!pids.is_empty()).then(|| format!("`kill {}` ends its VM", pids.join(" ")));
    let remove = folder.map(|folder| format!("`rm -r {folder}` removes its disks"));
    let fix = "`banger doctor --fix` removes the rest".to_owned();
    let steps: Vec<String> = kill.into_iter().chain(remove).chain([fix]).collect();
    format!(
        "restore the banger.db that contains VM `{vm}`, or give the VM up: {}",
        steps.join("; ")
    )
}

fn ask_words(vm: &str, action: &VmAction) -> String {
    let verb = action.as_str();
    match action {
        VmAction::Start {} => format!("`banger vm start {vm}` starts it"),
        VmAction::Stop { .. } => format!("`banger vm stop {vm}` stops it"),
        VmAction::Pause {} => format!("`banger vm pause {vm}` pauses it"),
        VmAction::Resume {} => format!("`banger vm resume {vm}` resumes it"),
        VmAction::Kill {} => format!("`banger vm kill {vm}` ends it at once"),
        VmAction::Delete { force: true } => format!("`banger vm delete -f {vm}` removes it"),
        VmAction::Delete { force: false } => format!("`banger vm delete {vm}` removes it"),
        VmAction::Set(_) => format!("`banger vm set {vm}` changes it"),
        VmAction::Rename { name } => format!("`banger vm rename {vm} {name}` renames it"),
        VmAction::Reset {} => format!("`banger vm reset {vm}` gives it a fresh root disk"),
        VmAction::Restart { .. } | VmAction::Repair {} => {
            format!("`banger vm {verb} {vm}` brings it back")
        }
    }
}
