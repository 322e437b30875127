/* SPDX-License-Identifier: BSD-2-Clause */
/* 82540EM: saved state. */
#include <errno.h>
#include <string.h>

#include "vmm/e1000_priv.h"

static void hdr_save(struct state_writer *w, const struct net_vnet_hdr *h)
{
	state_put_u8(w, h->flags);
	state_put_u8(w, h->gso_type);
	state_put_u16(w, h->hdr_len);
	state_put_u16(w, h->gso_size);
	state_put_u16(w, h->csum_start);
	state_put_u16(w, h->csum_offset);
}

static void hdr_load(struct state_reader *r, struct net_vnet_hdr *h)
{
	memset(h, 0, sizeof(*h));
	h->flags = state_get_u8(r);
	h->gso_type = state_get_u8(r);
	h->hdr_len = state_get_u16(r);
	h->gso_size = state_get_u16(r);
	h->csum_start = state_get_u16(r);
	h->csum_offset = state_get_u16(r);
}

void e1000_save(struct device *d, struct state_writer *w)
{
	struct e1000 *e = (struct e1000 *)d;
	const struct e1000_context *c = &e->context;

	state_section_begin(w, d->name, 1);
	for (unsigned i = 0; i < E1000_REGS_SIZE / 4; i++)
		state_put_u32(w, e->regs[i]);
	for (unsigned i = 0; i < E1000_PHY_REGS; i++)
		state_put_u16(w, e->phy[i]);
	state_put_bytes(w, e->mac, sizeof(e->mac));
	state_put_u32(w, e->ioaddr);
	state_put_u32(w, e->ee_in);
	state_put_u16(w, e->ee_out);
	state_put_u8(w, e->ee_bits);
	state_put_u8(w, e->ee_out_bits);
	state_put_u8(w, e->ee_clock);
	state_put_u8(w, c->ipcss);
	state_put_u8(w, c->ipcso);
	state_put_u16(w, c->ipcse);
	state_put_u8(w, c->tucss);
	state_put_u8(w, c->tucso);
	state_put_u16(w, c->tucse);
	state_put_u8(w, c->hdrlen);
	state_put_u16(w, c->mss);
	state_put_u32(w, c->paylen);
	state_put_u8(w, (uint8_t)(c->tcp | c->ipv4 << 1));
	state_put_u8(w, (uint8_t)(e->frame_bad | e->frame_started << 1 | e->frame_ready << 2 |
				  e->frame_tse << 3 | e->frame_cut << 4 | e->frame_tagged << 5));
	state_put_u8(w, e->frame_popts);
	state_put_u32(w, e->frame_sent);
	state_put_u16(w, e->frame_index);
	hdr_save(w, &e->frame_hdr);
	state_put_u32(w, e->frame_len);
	state_put_bytes(w, e->frame, e->frame_len);
	state_section_end(w);
	pci_device_save(&e->pci, w);
}

static void frame_load(struct e1000 *e, struct state_reader *r)
{
	uint8_t bits = state_get_u8(r);

	e->frame_bad = bits & 1;
	e->frame_started = bits >> 1 & 1;
	e->frame_ready = bits >> 2 & 1;
	e->frame_tse = bits >> 3 & 1;
	e->frame_cut = bits >> 4 & 1;
	e->frame_tagged = bits >> 5 & 1;
	e->frame_popts = state_get_u8(r);
	e->frame_sent = state_get_u32(r);
	e->frame_index = state_get_u16(r);
	hdr_load(r, &e->frame_hdr);
	e->frame_len = state_get_u32(r);
	if (e->frame_len > E1000_FRAME_MAX - 4 ||
		(e->frame_ready && e->frame_len < NET_FRAME_MIN)) {
		e->frame_len = 0;
		r->error = r->error ? r->error : -EINVAL;
	}
	if (r->error) {
		e->frame_ready = false;
		return;
	}
	state_get_bytes(r, e->frame, e->frame_len);
}

/* Register values need no check: a guest could have written any. What indexes our own memory does.
 */
void e1000_load(struct device *d, struct state_reader *r)
{
	struct e1000 *e = (struct e1000 *)d;
	struct e1000_context *c = &e->context;
	uint8_t bits;

	if (!state_section_enter(r, d->name, 1))
		return;
	for (unsigned i = 0; i < E1000_REGS_SIZE / 4; i++)
		e->regs[i] = state_get_u32(r);
	for (unsigned i = 0; i < E1000_PHY_REGS; i++)
		e->phy[i] = state_get_u16(r);
	state_get_bytes(r, e->mac, sizeof(e->mac));
	e->ioaddr = state_get_u32(r) & (E1000_MMIO_SIZE - 1);
	e->ee_in = state_get_u32(r);
	e->ee_out = state_get_u16(r);
	e->ee_bits = state_get_u8(r);
	e->ee_out_bits = state_get_u8(r);
	e->ee_clock = state_get_u8(r) & 1;
	c->ipcss = state_get_u8(r);
	c->ipcso = state_get_u8(r);
	c->ipcse = state_get_u16(r);
	c->tucss = state_get_u8(r);
	c->tucso = state_get_u8(r);
	c->tucse = state_get_u16(r);
	c->hdrlen = state_get_u8(r);
	c->mss = state_get_u16(r);
	c->paylen = state_get_u32(r);
	bits = state_get_u8(r);
	c->tcp = bits & 1;
	c->ipv4 = bits >> 1 & 1;
	frame_load(e, r);
	state_section_leave(r);
	e1000_eeprom_fill(e);
	/* the cable of this host, not of that where it was saved */
	if (!r->error)
		e1000_link_check(e);
	pci_device_load(&e->pci, r);
	e1000_irq_update(e);
	legacy_net_rx_resume(e->net);
}
