//! The Debian package and the tarball: what is in them, that the same tree gives the same bytes, and what
//! installing, upgrading, removing and purging do to a Debian 12 system (where systemd is not running).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tests::{
    debian::{sh, try_sh, Chroot, Folder},
    tools,
};

const TARGET: &str = "x86_64-unknown-linux-musl";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const DEB: &str = concat!("copepod_", env!("CARGO_PKG_VERSION"), "_amd64.deb");
/// `systemd-analyze security`, tenths: what the sandbox may leave open.
const EXPOSURE: &str = "20";
/// What systemd 252 says of the keys that came with 254; nothing else may be said.
const NEWER_KEYS: [&str; 2] = ["'RestartSteps'", "'RestartMaxDelaySec'"];

/// Packages the agent as it is shipped into `folder`.
fn package(folder: &Path) {
    let script = tools::root().join("cross/package");
    sh(
        "\"$1\" --binary \"$2\" --output \"$3\" \"$4\"",
        &[&script, &tools::shipped(TARGET), &folder, &TARGET],
    );
}

/// The packages, made once.
fn packages() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        // One for all tests, so it outlives them: the next run begins with it.
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        package(&path);
        path
    })
}

/// What the package installs, unpacked.
fn unpacked(name: &str) -> Folder {
    let folder = Folder::new(name);
    sh("dpkg-deb --extract \"$1\" \"$2\"", &[&packages().join(DEB), &folder.0]);
    folder
}

#[test]
fn the_package_holds_what_a_node_needs_and_everything_is_roots() {
    let deb = packages().join(DEB);
    let listed = sh("dpkg-deb --contents \"$1\"", &[&deb]);
    let mut files = BTreeSet::new();
    for line in listed.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, name) = (fields[0], fields[1], fields[5].trim_start_matches('.'));
        assert_eq!(owner, "root/root", "{line}");
        let wanted = match (mode.starts_with('d'), name) {
            (true, _) => "drwxr-xr-x",
            (false, "/usr/bin/copepod") => "-rwxr-xr-x",
            (false, _) => "-rw-r--r--",
        };
        assert_eq!(mode, wanted, "{line}");
        files.insert(name.to_owned());
    }
    for file in [
        "/etc/copepod/certs.d/",
        "/etc/default/copepod",
        "/usr/bin/copepod",
        "/usr/lib/systemd/system/copepod-bootstrap.path",
        "/usr/lib/systemd/system/copepod-bootstrap.service",
        "/usr/lib/systemd/system/copepod.service",
        "/usr/lib/sysusers.d/copepod.conf",
        "/usr/lib/tmpfiles.d/copepod.conf",
        "/usr/share/doc/copepod/changelog.gz",
        "/usr/share/doc/copepod/THIRD-PARTY.gz",
        "/usr/share/doc/copepod/copyright",
        "/usr/share/doc/copepod/examples/board-configs/README.md",
        "/usr/share/doc/copepod/examples/copepod.yaml",
        "/usr/share/doc/copepod/examples/read-only-root/README.md",
        "/usr/share/man/man1/copepod-bootstrap.1.gz",
        "/usr/share/man/man1/copepod-push.1.gz",
        "/usr/share/man/man1/copepod-run.1.gz",
        "/usr/share/man/man1/copepod.1.gz",
    ] {
        assert!(files.contains(file), "{file} is missing: {listed}");
    }
    let control = sh("dpkg-deb --field \"$1\"", &[&deb]);
    for field in [
        "Package: copepod\n",
        &format!("Version: {VERSION}\n"),
        "Architecture: amd64\n",
        "Priority: optional\n",
    ] {
        assert!(control.contains(field), "{field}: {control}");
    }
    let folder = unpacked("contents");
    sh(
        "dpkg-deb --control \"$1\" \"$2/DEBIAN\" && cd \"$2\" && md5sum --quiet -c DEBIAN/md5sums",
        &[&deb, &folder.0],
    );
    let conffiles = fs::read_to_string(folder.0.join("DEBIAN/conffiles")).expect("conffiles");
    assert_eq!(conffiles, "/etc/default/copepod\n");
    let binary = fs::read(folder.0.join("usr/bin/copepod")).expect("the binary");
    assert!(
        binary == fs::read(tools::shipped(TARGET)).expect("the agent"),
        "the binary is the one that is shipped"
    );
}

#[test]
fn what_is_not_the_static_agent_of_its_target_is_not_packaged() {
    let folder = Folder::new("refused");
    let script = tools::root().join("cross/package");
    for (binary, target, says) in [
        (tools::shipped(TARGET), "aarch64-unknown-linux-musl", "is no program of aarch64"),
        (PathBuf::from("/bin/sh"), TARGET, "is not static"),
        (PathBuf::from("/etc/hostname"), TARGET, "is no program"),
    ] {
        let (packaged, said) =
            try_sh("\"$1\" --binary \"$2\" --output \"$3\" \"$4\"", &[&script, &binary, &folder.0, &target]);
        assert!(!packaged && said.contains(says), "{}: {said}", binary.display());
    }
    assert_eq!(fs::read_dir(&folder.0).expect("the folder").count(), 0, "something was packaged");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let again = Folder::new("again");
    package(&again.0);
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).expect("the packages");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let wanted = [DEB, "SHA256SUMS", &format!("copepod-{VERSION}-{TARGET}.tar.gz")].map(str::to_owned);
    assert_eq!(names(packages()), BTreeSet::from(wanted));
    for name in names(&again.0) {
        let (one, other) = (fs::read(packages().join(&name)), fs::read(again.0.join(&name)));
        assert!(one.expect("one") == other.expect("the other"), "{name} differs between two builds");
    }
    sh("cd \"$1\" && sha256sum --quiet --strict -c SHA256SUMS", &[&packages()]);
}

#[test]
fn what_the_tarball_says_to_type_installs_it() {
    let folder = Folder::new("tarball");
    let root = folder.0.join("root");
    fs::create_dir(&root).expect("a folder");
    let name = format!("copepod-{VERSION}-{TARGET}");
    sh("tar -xf \"$1\" -C \"$2\"", &[&packages().join(format!("{name}.tar.gz")), &folder.0]);
    let tree = folder.0.join(&name);
    let text = fs::read_to_string(tree.join("INSTALL")).expect("INSTALL");
    // The commands that place files, with another root in place of /.
    let placing: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.contains("install "))
        .map(|line| line.replace(" /", &format!(" {}/", root.display())))
        .collect();
    assert!(placing.len() >= 7, "{text}");
    sh(
        "cd \"$1\"; mkdir -p \"$2\"/usr/bin \"$2\"/etc/systemd/system; eval \"$3\"",
        &[&tree, &root, &placing.join("\n")],
    );
    for file in [
        "usr/bin/copepod",
        "etc/systemd/system/copepod.service",
        "etc/systemd/system/copepod-bootstrap.path",
        "etc/systemd/system/copepod-bootstrap.service",
        "etc/sysusers.d/copepod.conf",
        "etc/tmpfiles.d/copepod.conf",
        "etc/default/copepod",
        "usr/share/man/man1/copepod.1",
    ] {
        assert!(root.join(file).is_file(), "{file}: {placing:?}");
    }
    let version = sh("\"$1\" --version", &[&root.join("usr/bin/copepod")]);
    assert_eq!(version, format!("copepod {VERSION}\n"));
    for file in ["LICENSE", "README.md", "CHANGELOG.md", "copepod.yaml", "systemd/read-only-root/README.md"] {
        assert!(tree.join(file).is_file(), "{file}");
    }
}

#[test]
fn the_manual_pages_are_clean() {
    let folder = unpacked("manual");
    let said = sh(
        "for page in \"$1\"/usr/share/man/man1/*.gz; do
            gunzip --keep \"$page\"
            mandoc -T lint \"${page%.gz}\"
            groff -man -ww -Tutf8 -z \"${page%.gz}\"
        done",
        &[&folder.0],
    );
    assert_eq!(said, "");
    let page = fs::read_to_string(folder.0.join("usr/share/man/man1/copepod.1")).expect("the page");
    let help = sh("\"$1\" --help", &[&tools::shipped(TARGET)]);
    for flag in help.lines().filter_map(|line| line.trim().strip_prefix("--")) {
        let flag = flag.split([' ', ',']).next().unwrap_or_default().replace('-', "\\-");
        assert!(page.contains(&format!("\\-\\-{flag}\\f")), "--{flag} is not in the manual");
    }
}

#[test]
fn the_example_and_the_defaults_are_taken_by_the_agent() {
    let folder = unpacked("settings");
    let example = folder.0.join("usr/share/doc/copepod/examples/copepod.yaml");
    let with = |file: &Path, more: &str| {
        try_sh(&format!("env -i \"$1\" --config \"$2\" {more}"), &[&tools::shipped(TARGET), &file])
    };
    // A flag that is wrong in any case comes after a file that is right.
    let refused = |file: &Path| with(file, "--port 0");
    assert!(refused(&example).1.starts_with("--port"), "{:?}", refused(&example));
    let text = fs::read_to_string(&example).expect("the example");
    for (pods, more, says) in [("110", "--port 0", "--port"), ("none", "", "maxPods")] {
        let set = text.replace("\n#maxPods: 110", &format!("\nmaxPods: {pods}"));
        assert_ne!(set, text, "the example has a line for maxPods");
        fs::write(&example, set).expect("the example");
        let (ran, said) = with(&example, more);
        assert!(!ran && said.contains(says), "{said}");
    }
    fs::write(folder.0.join("wrong.yaml"), "noSuchKey: 1\n").expect("a file");
    assert!(refused(&folder.0.join("wrong.yaml")).1.contains("noSuchKey"));

    let help = sh("\"$1\" --help", &[&tools::shipped(TARGET)]);
    let defaults = fs::read_to_string(folder.0.join("etc/default/copepod")).expect("the defaults");
    let variables: Vec<&str> =
        defaults.lines().filter_map(|line| line.strip_prefix("#COPEPOD_")?.split('=').next()).collect();
    assert!(variables.len() > 10, "{defaults}");
    for variable in &variables {
        let flag = variable.to_lowercase().replace('_', "-");
        assert!(help.contains(&format!("--{flag}")), "{variable} is no setting");
    }
    let set = defaults.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(set, None, "nothing is set by installing");
}

/// What `systemd-analyze` has against the units of a system: none of it may be left.
#[track_caller]
fn complaints(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !NEWER_KEYS.iter().any(|key| line.contains(key))).collect()
}

#[test]
fn the_units_are_right_and_shut_in_also_for_a_read_only_root() {
    let system = Chroot::new("units");
    sh("dpkg-deb --extract \"$1\" \"$2\"", &[&packages().join(DEB), &system.root()]);
    let units = "copepod.service copepod-bootstrap.path copepod-bootstrap.service";
    for drop_in in [false, true] {
        if drop_in {
            let examples = system.root().join("usr/share/doc/copepod/examples/read-only-root");
            sh("cp -r \"$1\"/systemd \"$1\"/tmpfiles.d \"$2\"/etc/", &[&examples, &system.root()]);
            let shown =
                sh("systemd-analyze cat-config --root=\"$1\" tmpfiles.d/copepod.conf", &[&system.root()]);
            assert!(shown.contains("/data/copepod/lib") && !shown.contains("/etc/copepod"), "{shown}");
        }
        // It fails because of the two keys where systemd does not know them.
        let (_, said) =
            try_sh(&format!("systemd-analyze verify --man=no --root=\"$1\" {units}"), &[&system.root()]);
        assert_eq!(complaints(&said), Vec::<&str>::new(), "with the drop-in: {drop_in}");
        for unit in ["copepod.service", "copepod-bootstrap.service"] {
            sh(
                "systemd-analyze security --offline=true --no-pager --root=\"$1\" --threshold=\"$2\" \"$3\"",
                &[&system.root(), &EXPOSURE, &unit],
            );
        }
    }
    // The check can fail: without its sandbox the unit is refused.
    let unit = system.root().join("usr/lib/systemd/system/copepod.service");
    let text = fs::read_to_string(&unit).expect("the unit");
    fs::write(&unit, text.replace("ProtectSystem=strict", "ProtectSystem=sometimes")).expect("the unit");
    let (_, said) =
        try_sh("systemd-analyze verify --man=no --root=\"$1\" copepod.service", &[&system.root()]);
    assert!(complaints(&said).iter().any(|line| line.contains("sometimes")), "{said}");
    let open: String =
        text.lines().filter(|line| !line.contains("SystemCall")).flat_map(|l| [l, "\n"]).collect();
    fs::write(&unit, open).expect("the unit");
    let (success, _) = try_sh(
        "systemd-analyze security --offline=true --no-pager --root=\"$1\" --threshold=\"$2\" copepod.service",
        &[&system.root(), &EXPOSURE],
    );
    assert!(!success, "a unit that may make any system call passes");
}

/// The package once more under a higher version, with a line more in its defaults file.
fn newer(folder: &Path) -> PathBuf {
    let package = folder.join("newer.deb");
    sh(
        "dpkg-deb --raw-extract \"$1\" \"$2\"
         sed -i 's/^Version: .*/&+1/' \"$2\"/DEBIAN/control
         echo '# new' >>\"$2\"/etc/default/copepod
         dpkg-deb --root-owner-group -Znone --build \"$2\" \"$3\" >/dev/null",
        &[&packages().join(DEB), &folder.join("newer"), &package],
    );
    package
}

const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/copepod.service";

#[test]
fn installed_upgraded_removed_purged() {
    let system = Chroot::new("life");
    let folder = Folder::new("newer");
    let newer = newer(&folder.0);
    for package in [packages().join(DEB), newer] {
        let name = package.file_name().expect("a name").to_owned();
        fs::copy(&package, system.root().join("root").join(name)).expect("the package");
    }
    system.pretend_systemd();

    system.inside(&format!("dpkg -i /root/{DEB}"));
    assert_eq!(system.told(), ["deb-systemd-invoke start copepod.service"]);
    assert!(system.has(ENABLED), "the unit is enabled");
    assert_eq!(system.inside("copepod --version"), format!("copepod {VERSION}\n"));
    let user = system.inside("getent passwd copepod");
    assert!(user.ends_with(":/var/lib/copepod:/usr/sbin/nologin\n"), "{user}");
    assert_eq!(system.inside("id -gn copepod"), "copepod\n");

    // What the node and its administrator have made since.
    system.inside(
        "mkdir -m 700 /var/lib/copepod; echo key >/var/lib/copepod/key; chown -R copepod: /var/lib/copepod
         install -m 600 /dev/null /etc/copepod/bootstrap.conf; echo COPEPOD_MAX_PODS=7 >/etc/default/copepod",
    );
    system.inside("systemd-tmpfiles --create copepod.conf");
    assert_eq!(system.inside("stat -c '%a %U %G' /etc/copepod/bootstrap.conf"), "640 root copepod\n");

    system.inside("dpkg -i --force-confold /root/newer.deb");
    assert_eq!(system.told(), ["deb-systemd-invoke restart copepod.service"]);
    assert_eq!(system.inside("dpkg-query -W -f '${Version}' copepod"), format!("{VERSION}+1"));
    assert_eq!(system.inside("cat /etc/default/copepod"), "COPEPOD_MAX_PODS=7\n");
    assert!(system.has("/etc/default/copepod.dpkg-dist"), "the new defaults file is beside the old one");
    assert!(system.has(ENABLED) && system.has("/var/lib/copepod/key"));

    // Who has disabled the unit is not overruled by an upgrade.
    system.inside(&format!("rm {ENABLED}; dpkg -i --force-confold /root/newer.deb"));
    assert!(!system.has(ENABLED), "an upgrade enables what was disabled");
    system.told();

    system.inside("dpkg -r copepod");
    assert_eq!(system.told(), ["deb-systemd-invoke stop copepod.service copepod-bootstrap.path"]);
    for kept in ["/var/lib/copepod/key", "/etc/copepod/bootstrap.conf", "/etc/default/copepod"] {
        assert!(system.has(kept), "{kept} is kept");
    }
    assert!(!system.has("/usr/bin/copepod"));

    // Installed again, it is what it was: disabled.
    system.inside(&format!("dpkg -i --force-confold /root/{DEB}"));
    assert!(!system.has(ENABLED), "reinstalling enables what was disabled");
    system.inside("systemctl --root=/ enable copepod.service; dpkg -r copepod; : >/told");
    system.inside(&format!("dpkg -i --force-confold /root/{DEB}"));
    assert_eq!(system.told(), ["deb-systemd-invoke restart copepod.service"]);
    assert!(system.has(ENABLED), "what was enabled is so again");

    system.inside("dpkg -P copepod");
    for gone in ["/var/lib/copepod", "/etc/copepod", "/etc/default/copepod", ENABLED] {
        assert!(!system.has(gone), "{gone} is left");
    }
    let left =
        system.inside("dpkg -l copepod | grep copepod || true; find /etc /var /usr -name '*copepod*' | sort");
    assert!(left.lines().all(|line| line.contains("no packages found") || line.starts_with("un ")), "{left}");
}

/// What docs/card.md puts on the boot partition of Raspberry Pi OS, run as cloud-init is told to.
#[test]
fn the_first_start_of_raspberry_pi_os_installs_the_node() {
    let system = Chroot::new("firstrun");
    let boot = system.root().join("boot/firmware");
    fs::create_dir_all(&boot).expect("the root is writable");
    let shipped = tools::root().join("cross/imager");
    fs::copy(shipped.join("firstrun.sh"), boot.join("firstrun.sh")).expect("it is there");
    fs::copy(packages().join(DEB), boot.join(DEB)).expect("the package");
    fs::write(boot.join("copepod-bootstrap.conf"), "kind: Config\n").expect("it is writable");
    let line =
        "console=tty1 rootwait systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot \
                systemd.unit=kernel-command-line.target\n";
    fs::write(boot.join("cmdline.txt"), line).expect("it is writable");
    system.pretend_systemd();

    let told = fs::read_to_string(shipped.join("user-data")).expect("it is there");
    let command = told.strip_prefix("#cloud-config\nruncmd:\n- [").expect("one command for cloud-init");
    let command = command.trim_end().trim_end_matches(']').replace(',', " ");
    system.inside(&command);

    let log = system.inside("cat /boot/firmware/firstrun.log");
    assert!(log.ends_with(&format!("copepod is installed from /boot/firmware/{DEB}\n")), "{log}");
    assert_eq!(system.told(), ["deb-systemd-invoke start copepod.service"]);
    assert!(system.has(ENABLED), "the unit is enabled: {log}");
    let bootstrap = system.inside("cd /etc/copepod; stat -c '%a %U' bootstrap.conf; cat bootstrap.conf");
    assert_eq!(bootstrap, "600 root\nkind: Config\n");
    assert!(!system.has("/boot/firmware/copepod-bootstrap.conf"), "the token is still on the boot partition");
    assert_eq!(system.inside("cat /boot/firmware/cmdline.txt"), "console=tty1 rootwait\n");

    // Without the package of this machine: it says so, and the machine starts.
    system.inside(&format!("dpkg -P copepod; rm /boot/firmware/{DEB}; {command}"));
    let log = system.inside("cat /boot/firmware/firstrun.log");
    assert!(
        log.ends_with("the package of Copepod for amd64 cannot be installed from /boot/firmware\n"),
        "{log}"
    );
}

#[test]
fn who_forbids_services_to_start_is_heard() {
    let system = Chroot::new("policy");
    fs::copy(packages().join(DEB), system.root().join("root").join(DEB)).expect("the package");
    system.pretend_systemd();
    // The real one, which asks policy-rc.d, over the stand-in for systemctl.
    system.inside("rm /usr/local/bin/deb-systemd-invoke");
    let policy = system.root().join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n").expect("a policy");
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).expect("its mode");
    system.inside(&format!("dpkg -i /root/{DEB}"));
    let told = system.told();
    assert!(!told.iter().any(|line| line.contains(" start ") || line.contains(" restart ")), "{told:?}");
    fs::remove_file(&policy).expect("the policy");
    system.inside(&format!("dpkg -i /root/{DEB}"));
    let told = system.told();
    assert!(told.iter().any(|line| line.contains("start copepod.service")), "{told:?}");
}

#[test]
fn a_folder_that_is_a_mount_point_is_emptied_by_a_purge() {
    let system = Chroot::new("mounted");
    fs::copy(packages().join(DEB), system.root().join("root").join(DEB)).expect("the package");
    let left = system.inside(&format!(
        "dpkg -i /root/{DEB}
         mkdir -p /data/lib /data/etc /var/lib/copepod
         mount --bind /data/lib /var/lib/copepod; echo key >/var/lib/copepod/key
         dpkg -P copepod
         ls -A /data/lib; ls -d /var/lib/copepod"
    ));
    assert!(left.ends_with("\n/var/lib/copepod\n") && !left.contains("key"), "{left}");
}

#[test]
fn a_system_without_systemd_gets_the_user_by_other_means() {
    let system = Chroot::new("no-systemd");
    fs::copy(packages().join(DEB), system.root().join("root").join(DEB)).expect("the package");
    system.inside("rm /usr/bin/systemd-sysusers /usr/bin/systemctl");
    system.inside(&format!("dpkg -i /root/{DEB}"));
    let user = system.inside("getent passwd copepod");
    assert!(user.ends_with(":Copepod node agent:/var/lib/copepod:/usr/sbin/nologin\n"), "{user}");
    let uid: u32 = user.split(':').nth(2).and_then(|uid| uid.parse().ok()).expect("a number");
    assert!((100..1000).contains(&uid), "a system user: {uid}");
    assert_eq!(system.inside("id -gn copepod"), "copepod\n");
    // A second installation finds the user there.
    system.inside(&format!("dpkg -i /root/{DEB} && dpkg -P copepod"));
}
