/**
 * The front door of the drivers: the devices of the machine, the drivers that come with the kernel, and the core.
 *
 * A new device is a model file and a driver file, and a line in each of the two tables below.
 */

import { BALLOON_DRIVER } from "./balloon.ts";
import { BALLOON_KIND } from "./balloon_device.ts";
import { BUGGY_DRIVER } from "./buggy.ts";
import { BUGGY_KIND } from "./buggy_device.ts";
import { DISK_DRIVER } from "./disk.ts";
import { DISK_KIND } from "./disk_device.ts";
import type { DriverType } from "./driver.ts";
import type { DevicePlace } from "./driver_core.ts";
import { FRAMEBUFFER_DRIVER } from "./framebuffer.ts";
import { FRAMEBUFFER_KIND } from "./framebuffer_device.ts";
import { type DeviceSettingTable, settingsOf } from "./hardware.ts";
import { NIC_DRIVER } from "./nic.ts";
import { NIC_KIND } from "./nic_device.ts";
import { RTC_DRIVER } from "./rtc.ts";
import { RTC_KIND } from "./rtc_device.ts";
import { SENSOR_DRIVER } from "./sensor.ts";
import { SENSOR_KIND } from "./sensor_device.ts";
import { UART_DRIVER } from "./uart.ts";
import { UART_KIND } from "./uart_device.ts";

export type { GuestMemory } from "./balloon_stats.ts";
export type { DeviceStats } from "./bus.ts";
export type { Driver, DriverType, KernelServices, Platform, StatRows } from "./driver.ts";
export { createDriverCore, type DevicePlace, type DriverCore, driverCoreStatics } from "./driver_core.ts";
export {
  type DeviceKind,
  type DeviceSetting,
  type DeviceSettings,
  type DeviceSettingTable,
  settingProblem,
} from "./hardware.ts";

/** The devices of the machine and their interrupt lines. Those that are not standard are there when configured. */
export const DEVICE_PLACES: readonly DevicePlace[] = [
  { name: "rtc0", line: 8, kind: RTC_KIND, isStandard: true },
  { name: "ttyS1", line: 5, kind: UART_KIND, isStandard: true },
  { name: "nic0", line: 9, kind: NIC_KIND, isStandard: true },
  { name: "nic1", line: 15, kind: NIC_KIND, isStandard: false },
  { name: "disk0", line: 10, kind: DISK_KIND, isStandard: true },
  { name: "disk1", line: 16, kind: DISK_KIND, isStandard: false },
  { name: "sensor0", line: 11, kind: SENSOR_KIND, isStandard: true },
  { name: "fb0", line: 12, kind: FRAMEBUFFER_KIND, isStandard: true },
  { name: "sensor1", line: 13, kind: SENSOR_KIND, isStandard: false },
  { name: "sensor2", line: 14, kind: SENSOR_KIND, isStandard: false },
  { name: "balloon0", line: 17, kind: BALLOON_KIND, isStandard: true },
  { name: "buggy0", line: 20, kind: BUGGY_KIND, isStandard: true },
];

/** The drivers that insmod finds. */
export const DRIVER_TYPES: readonly DriverType[] = [
  NIC_DRIVER,
  DISK_DRIVER,
  SENSOR_DRIVER,
  FRAMEBUFFER_DRIVER,
  RTC_DRIVER,
  UART_DRIVER,
  BALLOON_DRIVER,
  BUGGY_DRIVER,
];

/** Device → the settings that BootOptions.devices may give it, with their ranges. */
export const DEVICE_SETTINGS: Readonly<Record<string, DeviceSettingTable>> = Object.fromEntries(
  DEVICE_PLACES.map(({ name, kind }) => [name, settingsOf(kind)]),
);
