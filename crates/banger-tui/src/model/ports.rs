//! The line with the published ports of a VM: what is added to it is published, what is removed
//! from it is not any more.

use banger_api::operation::VmTag;
use banger_api::publish::PortForward;
use banger_api::set::{SetVm, Unpublish};

use super::edit::Edit;
use super::vms::Vm;

/// The line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortsPrompt {
    /// The VM.
    pub vm: VmTag,
    /// The ports when the line was opened.
    before: Vec<PortForward>,
    /// The ports as they are written.
    pub edit: Edit,
    /// Why they were refused.
    pub error: Option<String>,
}

impl PortsPrompt {
    /// The line with the present ports.
    pub fn new(vm: &Vm) -> Self {
        let before = vm.summary.publish.clone();
        let ports: Vec<String> = before.iter().map(PortForward::to_string).collect();
        Self { vm: vm.tag(), before, edit: Edit::new(ports.join(" ")), error: None }
    }

    /// The change; none if there is nothing to change.
    ///
    /// # Errors
    /// A word that is not a port to publish.
    pub fn change(&self) -> Result<Option<SetVm>, String> {
        let split = |c: char| c == ',' || c.is_whitespace();
        let words = self.edit.text().split(split).filter(|word| !word.is_empty());
        let ports = words.map(str::parse::<PortForward>).collect::<Result<Vec<_>, _>>();
        let ports = ports.map_err(|error| error.to_string())?;
        let gone = self.before.iter().filter(|port| !ports.contains(port));
        let unpublish: Vec<Unpublish> = gone
            .map(|port| Unpublish::Port { listen: Some(port.listen), host_port: port.host_port })
            .collect();
        let publish: Vec<PortForward> =
            ports.into_iter().filter(|port| !self.before.contains(port)).collect();
        let is_same = publish.is_empty() && unpublish.is_empty();
        Ok((!is_same).then(|| SetVm { publish, unpublish, ..SetVm::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(before: &str, text: &str) -> PortsPrompt {
        let vm = VmTag { id: "0123456789ab".parse().unwrap(), name: "web".parse().unwrap() };
        let before = before.split_whitespace().map(|port| port.parse().unwrap()).collect();
        PortsPrompt { vm, before, edit: Edit::new(text), error: None }
    }

    #[test]
    fn the_difference_is_requested() {
        assert_eq!(prompt("8080:80", "8080:80").change(), Ok(None));
        assert_eq!(prompt("", "  ").change(), Ok(None));
        let change = prompt("8080:80 9090:90", "9090:90, 0.0.0.0:443:443").change();
        let change = change.unwrap().unwrap();
        assert_eq!(change.publish, ["0.0.0.0:443:443".parse().unwrap()]);
        let listen = Some("127.0.0.1".parse().unwrap());
        assert_eq!(change.unpublish, [Unpublish::Port { listen, host_port: 8080 }]);
        // The same port of the host, to another port of the guest.
        let change = prompt("8080:80", "8080:81").change().unwrap().unwrap();
        assert_eq!((change.publish.len(), change.unpublish.len()), (1, 1));
        assert!(prompt("", "80").change().unwrap_err().contains("`80`"));
    }
}
