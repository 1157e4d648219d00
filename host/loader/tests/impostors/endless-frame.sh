#!/bin/sh
# Announces a frame beyond all bounds, and lives on.
printf '\377\377\377\377' >&0
exec sleep 60
