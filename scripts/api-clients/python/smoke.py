"""Uses the generated client against a daemon: create, list, an action, an error, delete.

    smoke.py SOCKET

`banger_api_client` is on the path.
"""

import sys
import time

import httpx
from banger_api_client import Client
from banger_api_client.api.operations import operation_show
from banger_api_client.api.vms import vm_action, vm_create, vm_list, vm_show
from banger_api_client.models import (
    Accepted,
    CreateVm,
    Labels,
    Problem,
    VmActionDelete,
    VmActionDeleteValues,
    VmActionStop,
    VmActionStopValues,
)


def done(client, accepted, kind):
    """Waits for the end of an operation."""
    assert isinstance(accepted, Accepted) and accepted.operation, accepted
    while True:
        operation = operation_show.sync(accepted.operation, client=client)
        if operation.state != "running":
            break
        time.sleep(0.02)
    assert (operation.state, operation.kind) == ("succeeded", kind), operation


def main():
    transport = httpx.HTTPTransport(uds=sys.argv[1])
    client = Client(base_url="http://localhost", httpx_args={"transport": transport})
    labels = Labels.from_dict({"made": "by-models"})
    body = CreateVm(name="python-client", vcpus=1, labels=labels)
    created = vm_create.sync_detailed(client=client, body=body, idempotency_key="python-smoke")
    assert created.status_code == 202, created
    done(client, created.parsed, "create")

    [vm] = vm_list.sync(client=client, filter_=["label=made"])
    assert (vm.name, vm.state) == ("python-client", "running"), vm

    stop = VmActionStop(stop=VmActionStopValues(grace_ms=1000))
    done(client, vm_action.sync(vm.id, client=client, body=stop), "stop")
    shown = vm_show.sync(vm.id, client=client)
    assert (shown.state, shown.stopped_because.reason) == ("stopped", "asked"), shown

    absent = vm_show.sync("nosuch", client=client)
    assert isinstance(absent, Problem), absent
    assert (absent.code, absent.status) == ("not_found", 404), absent

    delete = VmActionDelete(delete=VmActionDeleteValues(force=True))
    done(client, vm_action.sync(vm.id, client=client, body=delete), "delete")
    print("ok")


main()
