"""A SLURM cluster on this machine alone: a controller and two nodes, without rights.

Debian's own SLURM, installed or unpacked into a folder; daemons of the caller's user on
ports of their own; no munge, no slurmdbd. A node can be killed as a machine dies: the
daemon and all that it runs.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

NODES = ("n1", "n2")
PACKAGES = (
    "libhwloc15",
    "liblua5.1-0",
    "libmunge2",
    "munge",
    "slurm-wlm-basic-plugins",
    "slurm-client",
    "slurmd",
    "slurmctld",
)
CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=5
MinJobAge=600
SchedulerParameters=sched_interval=5
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Brought up by ``with``, taken down at its end, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "state").mkdir(parents=True)
        (self.folder / "bin").mkdir()
        self.unpacked = _unpacked(self.folder)
        controller, *ports = _free_ports(1 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=16000"
            for name, port in zip(NODES, ports, strict=True)
        ]
        text = CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            controller=controller,
            folder=self.folder,
            plugins=self._plugins(),
            nodes="\n".join(nodes),
        )
        self.configuration.write_text(text, encoding="utf-8")
        # The job step plugin drops SLURM_CONF, which the cluster's own srun would not need.
        self._wrapper("srun")
        self._start("slurmctld", "-D", name="controller")
        for name in NODES:
            self._start("slurmd", "-D", "-N", name, name=name)
        self._wait(lambda: self.state() == dict.fromkeys(NODES, "idle"), "the nodes to be idle", 60)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--user", getpass.getuser()], env=self.environment, check=False)
        for name in NODES:
            self.kill(name)
        self.daemons["controller"].kill()
        for daemon in self.daemons.values():
            daemon.wait()

    def _plugins(self) -> str:
        # (Debian names the folder by architecture.)
        top = self.unpacked or Path("/")
        return str(next(top.glob("usr/lib/*/slurm-wlm")))

    def _wrapper(self, name: str) -> None:
        path = self.folder / "bin" / name
        real = shutil.which(name, path=self.environment["PATH"])
        path.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {real} "$@"\n', encoding="utf-8")
        path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that uses this cluster."""
        more = {"SLURM_CONF": str(self.configuration)}
        places = [str(self.folder / "bin")]
        if self.unpacked:
            places += [str(self.unpacked / "usr" / part) for part in ("bin", "sbin")]
            libraries = (self.unpacked / "usr/lib").glob("*-linux-gnu*")
            more["LD_LIBRARY_PATH"] = os.pathsep.join(
                [str(path) for lib in libraries for path in (lib, lib / "slurm-wlm")]
            )
        places += [os.environ["PATH"], "/usr/sbin"]
        return {**os.environ, **more, "PATH": os.pathsep.join(places)}

    def _start(self, program: str, *arguments: str, name: str) -> None:
        path = shutil.which(program, path=self.environment["PATH"])
        log = (self.folder / f"{name}.out").open("wb")
        # The mark finds what a node runs, which has no parent any more.
        environment = {**self.environment, "LOOPBACK_NODE": self._mark(name)}
        self.daemons[name] = subprocess.Popen(
            [path, *arguments], env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def _mark(self, name: str) -> str:
        return f"{self.folder}:{name}"

    def state(self) -> dict[str, str]:
        """What the controller says of each node: idle, mixed, allocated, down*."""
        said = self.ask("sinfo", "--noheader", "--Node", "--format", "%N %T")
        return dict(line.split() for line in said.splitlines())

    def ask(self, *command: str) -> str:
        result = subprocess.run(command, env=self.environment, capture_output=True, encoding="utf-8", check=False)
        return result.stdout

    def jobs(self) -> list[list[str]]:
        """Of each job that is not over: number, state, node."""
        said = self.ask("squeue", "--noheader", "--states", "PD,R,CG", "--format", "%A|%T|%N")
        return [line.split("|") for line in said.splitlines()]

    def kill(self, name: str) -> int:
        """Kill a node with all that it runs, as a machine dies; how many processes."""
        killed = 0
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                ours = environment.get("SLURM_CONF") == str(self.configuration)
                here = ours and environment.get("SLURMD_NODENAME") == name
                if here or environment.get("LOOPBACK_NODE") == self._mark(name):
                    process.send_signal(signal.SIGKILL)
                    killed += 1
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return killed

    def _wait(self, done, what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log"))
                raise SystemExit(f"Waited {seconds:.0f} s for {what}: {self.state()}\n{logs}")
            time.sleep(0.5)


def _unpacked(folder: Path) -> Path | None:
    """Where Debian's packages lie unpacked; None if SLURM is installed."""
    found = [shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "slurmd", "sbatch")]
    if all(found):
        return None
    place = folder / "debian"
    place.mkdir()
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=place, check=True, stdout=subprocess.DEVNULL)
    for package in place.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=place, check=True)
    return place


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
