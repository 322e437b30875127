/* SPDX-License-Identifier: BSD-2-Clause */
/* `sluice devices`: the models a guest can be given, and their options. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli_priv.h"
#include "vmm/vmm.h"

static const char help[] =
	"Usage: sluice devices [MODEL] [--json]\n"
	"\n"
	"Lists the device models a guest can be given: what goes behind model= in a\n"
	"--disk or --net of `sluice run`, and those that have an option of their own.\n"
	"With a MODEL, its options: each with the values it takes, and its default in\n"
	"parentheses.\n"
	"\n"
	"  --json       the same as JSON, for programs\n"
	"  --help       this text\n"
	"\n"
	"Examples:\n"
	"  sluice devices\n"
	"  sluice devices virtio-blk\n";

static const struct model_info *info_find(const char *name)
{
	const struct model_info *info;

	for (unsigned i = 0; (info = machine_model_info(i)); i++)
		if (!strcmp(info->name, name))
			return info;
	return NULL;
}

static void list_print(void)
{
	const struct model_info *info;

	printf("%-14s %-8s %-9s %s\n", "MODEL", "KIND", "WAY", "WHAT IT IS");
	for (unsigned i = 0; (info = machine_model_info(i)); i++)
		printf("%-14s %-8s %-9s %s\n", info->name, info->kind, info->way, info->help);
	printf("\n`sluice devices MODEL` lists a model's options.\n");
}

static void model_print(const struct model_info *info)
{
	printf("%s: %s (%s, %s)\n\n", info->name, info->help, info->kind, info->way);
	if (!info->option)
		printf("Options of --%s ...,model=%s:\n", info->kind, info->name);
	else
		printf(info->options->key ? "Options of %s:\n"
					  : "Made by %s; `sluice run --help` tells more.\n",
			info->option);
	for (const struct model_option *o = info->options; o->key; o++) {
		int width = printf("  %s=%s", o->key, o->values);

		if (width > 34)
			printf("\n%36s%s\n", "", o->help);
		else
			printf("%*s%s\n", 36 - width, "", o->help);
	}
}

static cJSON *model_json(const struct model_info *info)
{
	cJSON *model = cJSON_CreateObject(), *options = cJSON_AddArrayToObject(model, "options");

	cJSON_AddStringToObject(model, "name", info->name);
	cJSON_AddStringToObject(model, "kind", info->kind);
	cJSON_AddStringToObject(model, "way", info->way);
	cJSON_AddStringToObject(model, "help", info->help);
	if (info->option)
		cJSON_AddStringToObject(model, "option", info->option);
	for (const struct model_option *o = info->options; o->key; o++) {
		cJSON *option = cJSON_CreateObject();

		cJSON_AddStringToObject(option, "key", o->key);
		cJSON_AddStringToObject(option, "values", o->values);
		cJSON_AddStringToObject(option, "help", o->help);
		cJSON_AddItemToArray(options, option);
	}
	return model;
}

static int json_print(const struct model_info *only)
{
	cJSON *root = only ? model_json(only) : cJSON_CreateArray();
	const struct model_info *info;
	char *text;

	for (unsigned i = 0; !only && (info = machine_model_info(i)); i++)
		cJSON_AddItemToArray(root, model_json(info));
	text = cJSON_Print(root);
	cJSON_Delete(root);
	if (!text)
		return cli_fail("devices", CLI_HOST, "out of memory");
	puts(text);
	free(text);
	return CLI_OK;
}

static int model_unknown(const char *name)
{
	char names[256] = "";
	const struct model_info *info;

	for (unsigned i = 0; (info = machine_model_info(i)); i++) {
		size_t len = strlen(names);

		snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "", info->name);
	}
	return cli_fail("devices", CLI_USAGE, "%.60s: unknown model; use one of %s", name, names);
}

int cmd_devices(int argc, char **argv)
{
	static const struct cli_option options[] = {
		{"--json", false}, {"--help", false}, {"-h", false}, {NULL, false}};
	struct cli_args a = {.command = "devices", .argc = argc, .argv = argv, .options = options};
	const struct model_info *only = NULL;
	enum cli_next next;
	bool json = false;

	while ((next = cli_args_next(&a)) != CLI_END) {
		if (next == CLI_BAD)
			return CLI_USAGE;
		if (next == CLI_OPTION && a.option > 0) {
			fputs(help, stdout);
			return CLI_OK;
		}
		if (next == CLI_OPTION) {
			json = true;
			continue;
		}
		if (only)
			return cli_fail("devices", CLI_USAGE, "%.60s: one model at a time", a.word);
		only = info_find(a.word);
		if (!only)
			return model_unknown(a.word);
	}
	if (json)
		return json_print(only);
	if (only)
		model_print(only);
	else
		list_print();
	return CLI_OK;
}
