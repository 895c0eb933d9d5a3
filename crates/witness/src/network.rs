// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Gives the network card its address, over netlink: there is no `ip` in the guest.

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Sets the address, if any, and switches the interface on.
pub(crate) fn bring_up(name: &str, address: Option<(Ipv4Addr, u8)>) -> io::Result<()> {
    let index = if_nametoindex(name)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let route = SockProtocol::NetlinkRoute;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    if let Some((address, prefix)) = address {
        request(&netlink, &new_address(index, address, prefix))?;
    }
    request(&netlink, &link_up(index))
}

fn request(netlink: &OwnedFd, message: &[u8]) -> io::Result<()> {
    send(netlink.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match outcome(&answer[..length]) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("the kernel's answer is not an acknowledgement")),
    }
}

/// Returns the (negative) error number of an acknowledgement; zero means done.
fn outcome(answer: &[u8]) -> Option<i32> {
    let kind = answer.get(4..6)?.try_into().map(u16::from_ne_bytes).ok()?;
    let error = answer.get(16..20)?.try_into().map(i32::from_ne_bytes).ok()?;
    (kind == NLMSG_ERROR).then_some(error)
}

fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    const AF_INET: u8 = 2;
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(address.octets());
    }
    message(RTM_NEWADDR, NLM_F_CREATE, &body)
}

fn link_up(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for word in [index, IFF_UP, IFF_UP] {
        body.extend(word.to_ne_bytes());
    }
    message(RTM_NEWLINK, 0, &body)
}

/// Puts the header before a body: length, type, flags, sequence, sender.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("our messages are tiny");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those `ip address add 10.77.0.50/24 dev eth0` sends.
    #[test]
    fn an_address_message_is_laid_out_as_the_kernel_wants() {
        let bytes = new_address(2, Ipv4Addr::new(10, 77, 0, 50), 24);
        let expected = [
            40, 0, 0, 0, 20, 0, 5, 4, 0, 0, 0, 0, 0, 0, 0, 0, // header
            2, 24, 0, 0, 2, 0, 0, 0, // ifaddrmsg
            8, 0, 2, 0, 10, 77, 0, 50, 8, 0, 1, 0, 10, 77, 0, 50,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_acknowledgement_is_told_from_an_error() {
        let answer = |kind: u16, error: i32| {
            let mut bytes = vec![36, 0, 0, 0];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        assert_eq!(outcome(&answer(NLMSG_ERROR, 0)), Some(0));
        assert_eq!(outcome(&answer(NLMSG_ERROR, -17)), Some(-17));
        assert_eq!(outcome(&answer(3, 0)), None);
        assert_eq!(outcome(&[1, 2]), None);
    }
}
