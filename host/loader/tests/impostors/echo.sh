#!/bin/sh
# Sends the host its own frames back.
exec cat <&0 >&0
