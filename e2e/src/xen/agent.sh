#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs the script on its standard input, and says how that ended.
f=$(mktemp /tmp/cmd.XXXXXX); cat > $f
bash $f </dev/null 2>&1; rc=$?
rm -f $f
printf '\n#exit %s\n' $rc
