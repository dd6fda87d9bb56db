#!/usr/bin/env bash
# Lets the replica of the compose file connect: its role is the superuser that the image has made.
echo 'host replication all samenet scram-sha-256' >>"$PGDATA/pg_hba.conf"
