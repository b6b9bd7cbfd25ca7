//! Users and hosts by name, as this machine knows them.
//!
//! The system's name services are shared objects that the C library loads, and a program that is
//! linked statically can't load them: with `systemd` or `mdns` in `nsswitch.conf` it crashes. So
//! the files are read here, and for what is not in them `getent` is asked, which the C library
//! brings along and which has all services.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use nix::unistd::{Gid, Uid};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// His name.
    pub name: String,
    /// His number.
    pub uid: Uid,
    /// The number of his group.
    pub gid: Gid,
}

/// Whether this process is root, and there are others whom it could become. Who maps nothing but himself
/// into a user namespace is called root there, and is the same ordinary user as before.
pub fn is_root() -> bool {
    let is_alone = || {
        let map = fs::read_to_string("/proc/self/uid_map");
        map.is_ok_and(|map| has_one_user(&map))
    };
    nix::unistd::geteuid().is_root() && !is_alone()
}

/// Whether a map of a user namespace (lines of number inside, number outside, count) has one user.
fn has_one_user(map: &str) -> bool {
    let mut lines = map.lines();
    let count = lines.next().and_then(|line| line.split_whitespace().nth(2));
    count == Some("1") && lines.next().is_none()
}

/// The user with this name; none when there is none.
pub fn user(name: &str) -> Option<Account> {
    let file = fs::read_to_string("/etc/passwd").unwrap_or_default();
    account_in(&file, name).or_else(|| account_in(&getent("passwd", name)?, name))
}

fn account_in(text: &str, name: &str) -> Option<Account> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next().filter(|found| *found == name)?;
        let mut number = |skip| fields.nth(skip)?.parse().ok();
        let (uid, gid) = (number(1)?, number(0)?);
        Some(Account {
            name: found.to_owned(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
        })
    })
}

/// The addresses of `host`, which is a name or an address. Blocks as long as the name services do.
///
/// # Errors
/// When there is no such host.
pub fn host(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let file = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut addresses = hosts_in(&file, host);
    if addresses.is_empty() {
        addresses = getent("ahosts", host)
            .map(|text| addresses_in(&text))
            .unwrap_or_default();
    }
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no host has the name {host:?}"),
        ));
    }
    Ok(addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

fn hosts_in(text: &str, host: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    };
    text.lines().filter_map(line).collect()
}

fn addresses_in(text: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in text
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
    {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn getent(database: &str, key: &str) -> Option<String> {
    // A key that looks like an option is no name.
    if key.starts_with('-') {
        return None;
    }
    let output = Command::new("getent").args([database, key]).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_one_user_is_told_from_one_with_others() {
        for (map, expect) in [
            ("         0          0 4294967295\n", false),
            ("         0       1000          1\n", true),
            (
                "         0       1000          1\n         1     100000      65536\n",
                false,
            ),
            ("", false),
        ] {
            assert_eq!(has_one_user(map), expect, "{map:?}");
        }
    }

    #[test]
    fn files_are_read_as_the_manual_says() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nice:x:990:991::/:/bin/false\n";
        let ice = account_in(passwd, "ice").unwrap();
        assert_eq!((ice.uid.as_raw(), ice.gid.as_raw()), (990, 991));
        assert_eq!(account_in(passwd, "broken"), None);
        assert_eq!(account_in(passwd, "nobody"), None);

        let hosts =
            "127.0.0.1 localhost\n10.0.0.7 build build.example # the big one\n::1 localhost\n";
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(hosts_in(hosts, "BUILD"), [address("10.0.0.7")]);
        assert_eq!(
            hosts_in(hosts, "localhost"),
            [address("127.0.0.1"), address("::1")]
        );
        assert!(hosts_in(hosts, "big").is_empty());
        let ahosts = "10.0.0.7 STREAM build\n10.0.0.7 DGRAM\nfd00::7 STREAM\n";
        assert_eq!(
            addresses_in(ahosts),
            [address("10.0.0.7"), address("fd00::7")]
        );
    }

    #[test]
    fn an_address_needs_no_service() {
        assert_eq!(
            host("10.1.2.3", 80).unwrap(),
            ["10.1.2.3:80".parse().unwrap()]
        );
        assert_eq!(host("::1", 80).unwrap(), ["[::1]:80".parse().unwrap()]);
        assert!(host("-x", 80).is_err());
    }
}
