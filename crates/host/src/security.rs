// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What stands in the way and says so elsewhere: SELinux, AppArmor, firewalls.
