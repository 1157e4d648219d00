#!/bin/sh
# Half a frame, and the end.
printf '\040\000\000\000\042' >&0
